"""An exponential moving average of the weights: what is evaluated and shipped in place of the last raw ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Average:
    """Averaged parameters and buffers of a model, beside the raw ones.

    The decay grows as `(1 + t) / (10 + t)` up to `decay`, so that early weights do not linger. Floating-point buffers
    (the running statistics of norms) are averaged alike; counters are copied.

    Args:
        model: its present weights begin the average.
        decay: share of the average kept a step, in [0, 1); its memory is about `1 / (1 - decay)` steps.
        blend: share of the average in the weights that are used; the rest is the weights that the model has now, before
            training. Below 1, fine-tuning forgets less of what the weights knew.

    Source: Polyak & Juditsky 1992; the growth of the decay as in TensorFlow's ExponentialMovingAverage
    (Abadi et al. 2016). Blending: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1, which
    found one half to be a good choice throughout.
    """

    def __init__(self, model: nn.Module, decay: float, *, blend: float = 1.0) -> None:
        self.decay = decay
        self.blend = blend
        self.updates = 0
        live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._names = list(live)
        self._averages = {name: tensor.detach().clone() for name, tensor in live.items()}
        smooth = [name for name in live if live[name].is_floating_point()]
        self._pairs = [live[name].detach() for name in smooth], [self._averages[name] for name in smooth]
        self._copied = [(live[name], self._averages[name]) for name in live if name not in set(smooth)]
        self._live = live
        self._start = {name: live[name].detach().clone() for name in smooth} if blend < 1 else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights, once a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live, averages = self._pairs
        torch._foreach_lerp_(averages, live, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for source, target in self._copied:
            target.copy_(source)

    @contextlib.contextmanager
    def applied(self, *, blended: bool = True) -> Iterator[None]:
        """Within, the model holds the weights that are used; after, the raw ones again, bit for bit.

        Args:
            blended: whether with their share of the first weights; without, what is written into them stays.
        """
        raw = {name: tensor.data for name, tensor in self._live.items()}
        try:
            for name, tensor in self._live.items():
                average = self._averages[name]
                start = self._start.get(name) if blended else None
                tensor.data = average if start is None else torch.lerp(start, average, self.blend)
            yield
        finally:
            for name, tensor in self._live.items():
                tensor.data = raw[name]

    def state_dict(self) -> dict[str, object]:
        """The averages by name, and how many updates they have seen."""
        return {"updates": self.updates, "weights": dict(self._averages), "start": dict(self._start)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take back what `state_dict` returned."""
        weights: Mapping[str, Tensor] = state["weights"]  # type: ignore[assignment]
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        for name in self._names:
            self._averages[name].copy_(weights[name])
        start: Mapping[str, Tensor] = state.get("start", {})  # type: ignore[assignment]
        for name, tensor in self._start.items():
            tensor.copy_(start[name])
