"""The training loop: one object, trained by iterating over it.

    loop = Loop(model, task, {"model": optimizer}, epochs=30, schedule=one_cycle(100))
    for event in loop.run(batches):
        print(event)

Logging, checkpoints, early stopping and tests are plain Python around it: the loop says when (`Event`), its caller
acts. It holds all that a checkpoint needs and nothing else. Within a step nothing waits for the device: losses are
added up there and read when a `progress` or `epoch` event is due.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convsmith.batches import Batch, Batches, Sequence
from convsmith.errors import UsageError
from convsmith.registry import suggestion
from convsmith.tasks import Task
from convsmith.training import random_state
from convsmith.training.averaging import Average
from convsmith.training.depthwise import DepthwiseGradients, has_depthwise
from convsmith.training.processes import SINGLE, Processes
from convsmith.training.schedules import Schedule, constant
from convsmith.training.unfreezing import Thaw, separate, thaw

Kind = Literal["batch", "progress", "epoch", "tune", "checkpoint", "stopped"]


@dataclass(frozen=True)
class Event:
    """Something the loop's caller may act on; equal in all processes of a run.

    Args:
        kind: `progress` and `epoch` bring the mean loss since the last of either; `tune` and `checkpoint` say that it
            is time to predict the tune images and to save; `stopped` is the last; `batch` comes each step where the
            loop was given a `trace`.
        epoch: whole epochs done.
        step: steps done.
        values: figures by name: `loss` (or `loss.<group>` of several), `rate`, `images_per_second`.
    """

    kind: Kind
    epoch: int
    step: int
    values: Mapping[str, Any] = field(default_factory=dict)


class Loop:
    """Trains while it is iterated.

    Args:
        model: any module; it is trained where its parameters are.
        task: its losses, see `tasks.Task`.
        optimizers: parameter group, as the task's losses name it, to optimiser.
        epochs, steps: how long; one of them. The number of steps may also be changed later, as `loop.total`.
        schedule: factor of each optimiser's own rate, by step and total.
        transform: from a batch as stored to what the network takes (augmentation, normalisation); runs on the device.
        average: decay of an exponential moving average of the weights, or None for none.
        blend: share of the averaged weights in those that are used, see `Average`; below 1 it needs an average.
        clip: largest norm of a group's gradient, or None for none.
        precision: `bfloat16` runs forward passes under autocast; weights and updates stay float32.
        report_every, tune_every, checkpoint_every: steps between events of these kinds; 0 is never.
        frozen: modules that stay in inference mode, so that norms among them keep their running statistics.
        thaws: parts that are frozen until their time comes, see `Thaw`; their parameters are in the optimisers.
        trace: from a batch to lists, one item an image, for a `batch` event each step; for debugging and tests.
        processes: the other processes of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        schedule: Schedule | None = None,
        transform: Callable[[Batch], Batch] | None = None,
        average: float | None = None,
        blend: float = 1.0,
        clip: float | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        report_every: int = 50,
        tune_every: int = 0,
        checkpoint_every: int = 0,
        frozen: Iterable[nn.Module] = (),
        thaws: Iterable[Thaw] = (),
        trace: Callable[[Batch], Mapping[str, list[Any]]] | None = None,
        processes: Processes = SINGLE,
    ) -> None:
        if (epochs is None) == (steps is None):
            raise UsageError("A loop needs its length once: epochs or steps.")
        self.model = model
        self.task = task
        self.optimizers = dict(optimizers)
        self.epochs = epochs
        self.total = steps
        self.schedule = schedule or constant()
        self.transform = transform
        if average is None and blend < 1:
            raise UsageError("Weights are blended with their average, but none is kept.", mend="Give `average`, too.")
        self.average = Average(model, average, blend=blend) if average is not None else None
        self.clip = clip
        self.every: dict[Kind, int] = {"progress": report_every, "tune": tune_every, "checkpoint": checkpoint_every}
        self.frozen = tuple(frozen)
        self.thaws = tuple(thaws)
        self.trace = trace
        self.processes = processes
        self.step = 0
        self.epoch_length = 0
        self.stop_reason = 0
        self.device = next(model.parameters()).device
        self._bfloat16 = precision == "bfloat16"
        self._depthwise = self._bfloat16 and self.device.type == "cpu" and has_depthwise(model)
        self._sums = Sums(self.device)
        self._parameters = {name: _parameters(optimizer) for name, optimizer in self.optimizers.items()}
        for optimizer in self.optimizers.values():
            separate(optimizer, self.thaws)
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.epoch_length if self.epoch_length else 0

    @property
    def done(self) -> bool:
        """Whether all steps have been made."""
        return self.total is not None and self.step >= self.total

    def request_stop(self, reason: int = 1) -> None:
        """Ask the loop to end after the present step, in all processes at the same one.

        Args:
            reason: a positive number kept as `stop_reason`, such as the exit code; the largest of all processes wins.
        """
        self.stop_reason = max(self.stop_reason, reason)

    def run(self, batches: Batches | Iterable[tuple[Tensor, Tensor]]) -> Iterator[Event]:
        """Train from the present step to the last, yielding events between steps.

        Args:
            batches: `Batches`, or any sized iterable of `(images, targets)`, which resumes at epoch borders only.

        Raises:
            UsageError: the iterable has no length, or the loop stands inside an epoch that it cannot enter midway.
        """
        source = batches if isinstance(batches, Batches) else Sequence(batches)
        self.epoch_length = length = len(source)
        if self.total is None:
            self.total = (self.epochs or 0) * length
        self.model.train()
        for module in self.frozen:
            module.eval()
        self._sums.start()
        try:
            while self.step < self.total and not self._stopping():
                batch = source.at(self.step // length, self.step % length)
                thaw(self.thaws, self.step, self.total)
                self._train(batch)
                self.step += 1
                if self.trace is not None:
                    yield self._traced(batch)
                yield from self._due(length)
        finally:
            self.processes.settle()
        self.stop_reason = self.processes.largest(self.stop_reason)  # a late request reached one process only
        yield Event("stopped", self.epoch, self.step, {"reason": self.stop_reason, "done": self.done})

    @contextlib.contextmanager
    def deployed(self) -> Iterator[nn.Module]:
        """The model as it would be used now: averaged weights and the first process's buffers; raw again after.

        All processes of the run take part.
        """
        self._share_buffers()
        with self.average.applied() if self.average else contextlib.nullcontext():
            yield self.model

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, by reference: copy before the next step."""
        self._share_buffers()
        return {
            "step": self.step,
            "total": self.total,
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "average": self.average.state_dict() if self.average else None,
            "sums": self._sums.state_dict(self.processes),
            "random": self.processes.gather(random_state.capture()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, also under another number of processes."""
        self.step, self.total = state["step"], state["total"]
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))  # it would keep the tensors it is given
        if self.average:
            self.average.load_state_dict(state["average"])
        self._sums.load_state_dict(state["sums"], share=float(self.processes.first))
        random = state["random"]
        random_state.restore(random[self.processes.rank % len(random)])

    def _share_buffers(self) -> None:
        """Take the first process's running statistics, the raw and the averaged ones."""
        self.processes.share_buffers(self.model)
        if self.average and self.processes.world > 1:
            with self.average.applied(blended=False):
                self.processes.share_buffers(self.model)

    def _stopping(self) -> bool:
        agreed = self.processes.agree(self.stop_reason)
        if agreed:
            self.stop_reason = agreed
        return agreed > 0

    def _train(self, batch: Batch) -> None:
        batch = batch.to(self.device)
        if self.transform is not None:
            batch = self.transform(batch)
        losses = self.task.losses(self.model, batch)
        while True:
            with self._autocast():  # the backward pass belongs outside of it
                item = next(losses, None)
            if item is None:
                break
            self._update(*item, counts=not batch.borrowed)
        self._sums.images += 0 if batch.borrowed else len(batch)
        if self.average:
            self.average.update()

    def _update(self, name: str, loss_sum: Tensor, count: int | Tensor, *, counts: bool) -> None:
        if name not in self.optimizers:
            raise UsageError(
                f"Task {self.task.name!r} trains the parameter group {name!r}, but there is no optimiser of that name.",
                mend=suggestion(name, self.optimizers),
            )
        optimizer, parameters = self.optimizers[name], self._parameters[name]
        if not counts:
            loss_sum, count = loss_sum * 0.0, 0
        total = self.processes.total(count, self.device)
        # Where nothing counted (all pixels ignored), the sum is zero and so must be the gradient, not 0 / 0.
        total = total.masked_fill(total == 0, 1) if isinstance(total, Tensor) else total or 1
        optimizer.zero_grad()
        torch.autograd.backward(loss_sum / total, inputs=parameters if len(self.optimizers) > 1 else None)
        self.processes.sum_gradients(parameters)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip, foreach=True)
        factor = self.schedule(self.step, self.total or 0)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        self._sums.add(name, loss_sum.detach(), count)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        with contextlib.ExitStack() as within:
            if self._bfloat16:
                within.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if self._depthwise:
                within.enter_context(DepthwiseGradients())
            yield

    def _due(self, length: int) -> Iterator[Event]:
        """The events due after a step; none in most. What the caller does meanwhile does not count as training."""
        kinds: list[Kind] = [kind for kind, every in self.every.items() if every and self.step % every == 0]
        if self.step % length == 0:
            kinds = ["epoch", *(kind for kind in kinds if kind != "progress")]
        for kind in kinds:
            yield self._report(kind) if kind in {"epoch", "progress"} else Event(kind, self.epoch, self.step)
            self._sums.start()

    def _report(self, kind: Kind) -> Event:
        rate = next(iter(self.optimizers.values())).param_groups[0]["lr"]
        return Event(kind, self.epoch, self.step, {**self._sums.drain(self.processes), "rate": rate})

    def _traced(self, batch: Batch) -> Event:
        assert self.trace is not None
        own = self.trace(batch) if not batch.borrowed else {}
        shares = self.processes.gather(dict(own))
        values = {key: [item for share in shares for item in share.get(key, [])] for key in shares[0]}
        return Event("batch", self.epoch, self.step, values)


class Sums:
    """Running sums of losses, kept on the device, and the clock beside them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._losses: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}
        self.images = 0
        self._clock = time.perf_counter()

    def start(self) -> None:
        """Start the clock anew, after work that is not training."""
        self.images = 0
        self._clock = time.perf_counter()

    def add(self, name: str, loss_sum: Tensor, count: int | Tensor) -> None:
        """Add one batch's loss; nothing waits."""
        if name in self._losses:
            self._losses[name] += loss_sum
            self._counts[name] = self._counts[name] + count  # not in place: the tensor is the task's
        else:
            self._losses[name], self._counts[name] = loss_sum.clone(), count

    def drain(self, processes: Processes) -> dict[str, float]:
        """Mean losses and speed over all processes since the last call, which waits for the device; then zero."""
        names = sorted(self._losses)
        elapsed = time.perf_counter() - self._clock
        numbers = [
            *(self._losses[name] for name in names),
            *(self._counts[name] for name in names),
            self.images,
            elapsed,
        ]
        exact = torch.float32 if self._device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        row = torch.stack([torch.as_tensor(number, dtype=exact, device=self._device) for number in numbers])
        sums = processes.sum_(row).tolist()
        half = len(names)
        keys = ["loss"] if half == 1 else [f"loss.{name}" for name in names]
        values = {key: sums[i] / sums[half + i] for i, key in enumerate(keys) if sums[half + i]}
        values["images_per_second"] = sums[-2] * processes.world / max(sums[-1], 1e-9)
        self._losses.clear()
        self._counts.clear()
        self.start()
        return values

    def state_dict(self, processes: Processes) -> dict[str, Any]:
        """Losses and counts by group, of all processes together."""
        return {
            name: (processes.sum_(loss.clone()), processes.total(self._counts[name], self._device))
            for name, loss in sorted(self._losses.items())
        }

    def load_state_dict(self, state: Mapping[str, Any], *, share: float = 1.0) -> None:
        """Take back what `state_dict` returned, times `share`: all processes hold the same names, one the sums."""
        self._losses = {name: loss.to(self._device) * share for name, (loss, _) in state.items()}
        counts = {name: count for name, (_, count) in state.items()}
        self._counts = {
            name: share * (count.to(self._device) if isinstance(count, Tensor) else count)
            for name, count in counts.items()
        }


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
