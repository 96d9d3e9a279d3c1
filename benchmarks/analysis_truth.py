"""What networks really have and take, and what other tools say of it; for `analysis_accuracy.py`.

The truth is taken from real runs on the processor: multiply-adds by PyTorch's own counter, with attention and recurrent
layers in steps that it can see; memory from PyTorch's allocator, by the profiler's record of each allocation.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from convsmith.pipeline.given_model import open_model, parse_shape

LENET = Path(__file__).parents[1] / "examples" / "designs" / "lenet.yaml"
SHALLOW = {
    "convnet-small": ("convnet-small", "3x64x64", 32),
    "lenet": (str(LENET), "1x28x28", 32),
    "tf_efficientnet_lite0, its head alone": ("tf_efficientnet_lite0", "3x224x224", 16),
}
"""Networks whose peak lies in their maps and not in their weights: model, images and batch."""
PRODUCTS = {"addmm", "bmm", "baddbmm", "conv", "matmul", "mm", "linear", "einsum"}


def built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network, of torchvision where its name says so, and the shape of an image for it."""
    torch.manual_seed(0)
    if name in SHALLOW:
        model, shape, _ = SHALLOW[name]
        given = open_model(model, input_shape=parse_shape(shape), outputs=10, weights="none")
        if "head alone" in name:
            given.model.requires_grad_(False)
            given.model.get_classifier().requires_grad_(True)  # pyright: ignore[reportCallIssue]
        return given.model, given.shape
    if name.startswith("torchvision "):
        model = torchvision.models.get_model(name.removeprefix("torchvision "), weights=None)
        side = 299 if "inception" in name else 224
        return model, (3, side, side)
    model = timm.create_model(name)
    return model, tuple(model.pretrained_cfg.get("input_size", (3, 224, 224)))


def size(name: str) -> int:
    """How many parameters a network has, without building it where that takes memory."""
    if name.startswith("torchvision "):
        weights = torchvision.models.get_model_weights(name.removeprefix("torchvision "))
        return next(iter(weights)).meta["num_params"]
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())


def parameters(model: nn.Module) -> int:
    """Numbers in all parameters, each piece of memory once."""
    found: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                found[parameter.data_ptr()] = parameter.numel()
    return sum(found.values())


def macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of a real run."""
    counter = FlopCounterMode(display=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # the counter's own hooks fail where a parameter is handed to a module
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as within, torch.no_grad():
        within.enter_context(sdpa_kernel(SDPBackend.MATH))
        within.enter_context(_attention_in_steps())
        within.enter_context(mkldnn.flags(enabled=not recurrent))
        within.enter_context(counter)
        model.eval()(torch.zeros(1, *shape))
    for parameter in trained:  # ptflops counts these alone
        parameter.requires_grad_(True)
    return counter.get_total_flops() // 2


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def training_peak(model: nn.Module, shape: Sequence[int], batch: int, precision: str) -> int:
    """The most bytes at any moment of the second step with momentum: weights, state, gradients, images and all."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    images = _images(model, batch, shape)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = _loss(model(images))
        loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    state = [value for held in optimizer.state.values() for value in held.values() if isinstance(value, Tensor)]
    held = _bytes([*model.parameters(), *model.buffers(), *state, images])
    peak = held + _most(step)
    optimizer.zero_grad()
    return peak


def inference_peak(model: nn.Module, shape: Sequence[int], batch: int) -> int:
    """The most bytes at any moment of an inference pass."""
    model.eval()
    images = _images(model, batch, shape)

    def step() -> None:
        with torch.no_grad():
            model(images)

    step()
    return _bytes([*model.parameters(), *model.buffers(), images]) + _most(step)


def _images(model: nn.Module, batch: int, shape: Sequence[int]) -> Tensor:
    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return torch.randn(batch, *shape).to(next(floating, torch.get_default_dtype()))


def _loss(output: Any) -> Tensor:
    """Cross-entropy over the second dimension of all outputs; of maps at each position."""
    outputs = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    targets = [torch.zeros((len(logits), *logits.shape[2:]), dtype=torch.long) for logits in outputs]
    return sum(  # pyright: ignore[reportReturnType]
        nn.functional.cross_entropy(logits.float(), target) for logits, target in zip(outputs, targets, strict=True)
    )


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _most(step: Callable[[], None]) -> int:
    """The most that the allocator has given out at any moment of a step, beyond what it had before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def _torchinfo(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    import torchinfo

    found = torchinfo.summary(model, (1, *shape), verbose=0)
    return found.total_params, found.total_mult_adds


def _fvcore(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Products alone: it counts norms and poolings too, and tells them apart."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    found = FlopCountAnalysis(model, torch.zeros(1, *shape)).unsupported_ops_warnings(False)
    found = found.uncalled_modules_warnings(False).tracer_warnings("none")
    return parameter_count(model)[""], int(
        sum(count for name, count in found.by_operator().items() if name in PRODUCTS)
    )


def _ptflops(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """By operations, of the two ways that it offers the one which counts products alone."""
    from ptflops import get_model_complexity_info

    options: dict[str, Any] = {"as_strings": False, "print_per_layer_stat": False, "backend": "aten"}
    count, held = get_model_complexity_info(model, tuple(shape), **options)
    return int(held), int(count)  # pyright: ignore[reportArgumentType]


def _thop(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Without the norms, activations and poolings that it counts too."""
    from thop import profile as thop_profile
    from thop.profile import register_hooks
    from thop.vision.basic_hooks import zero_ops

    none = {kind: zero_ops for kind in register_hooks if not issubclass(kind, _COUNTED)}
    count, held = thop_profile(copy.deepcopy(model), (torch.zeros(1, *shape),), custom_ops=none, verbose=False)
    return int(held), int(count)


_COUNTED = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.Sequential)
PEERS: dict[str, Callable[[nn.Module, Sequence[int]], tuple[int, int]]] = {
    "torchinfo": _torchinfo,
    "fvcore": _fvcore,
    "ptflops": _ptflops,
    "thop": _thop,
}


def installed() -> dict[str, str]:
    """The other tools that are there, with their versions."""
    return {name: version(name) for name in PEERS if find_spec(name)}


def said_by(peer: str, model: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Parameters and multiply-adds by another tool; or how it failed."""
    started = time.perf_counter()
    try:
        with torch.no_grad():
            held, count = PEERS[peer](model.eval(), shape)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return {"parameters": held, "macs": count, "seconds": round(time.perf_counter() - started, 2)}
