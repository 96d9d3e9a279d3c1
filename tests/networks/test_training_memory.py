"""Memory worked out by hand, measured on real runs, or published."""

import pytest
import timm
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from convsmith.errors import UsageError
from convsmith.networks.counting.memory import held_bytes, inference_bytes, kept_by_call, training_memory
from convsmith.networks.recording.graph import record

MIB = 2**20


class Block(nn.Module):
    """A residual block with a depthwise convolution, a gate and dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        y = F.silu(self.norm(self.depthwise(x)))
        return x + self.drop(y * self.gate(y))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True), Block(32),
        nn.Conv2d(32, 64, 3, 2, 1), nn.GELU(), Block(64), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip


def kept_really(model: nn.Module, images: torch.Tensor) -> int:
    """What a real forward pass leaves with autograd."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(images)
    del output
    return sum(found.values())


def peak_really(step) -> int:
    """Most bytes that the allocator gives out during a step more than before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def step_really(model: nn.Module, images: torch.Tensor, precision: str) -> int:
    """Most bytes at any moment of a real step, the network's and the images' own included."""

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(images)
            loss = F.cross_entropy(output.float(), torch.zeros(output[:, 0].shape, dtype=torch.long))
        loss.backward()

    step()
    model.zero_grad()
    peak = held_bytes(model) + images.nbytes + peak_really(step)
    model.zero_grad()
    return peak


def test_what_autograd_keeps_is_what_a_real_run_keeps():
    model = network()
    kept = kept_by_call(model, (3, 64, 64), batch=4)
    assert sum(kept.values()) == kept_really(model, torch.zeros(4, 3, 64, 64))


def test_what_is_kept_belongs_to_the_call_that_needs_it_first():
    # A convolution keeps what it reads, a ReLU what it makes, which the next convolution reads.
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False))
    assert kept_by_call(model, (2, 5, 5), batch=2) == {("0", 0): 2 * 2 * 25 * 4, ("1", 0): 2 * 4 * 25 * 4}
    twice = nn.Sequential(model[0], model[1], model[2], nn.Conv2d(3, 2, 1), model[1])
    assert set(kept_by_call(twice, (2, 5, 5), batch=2)) == {("0", 0), ("1", 0), ("3", 0), ("1", 1)}


def test_what_a_forgotten_branch_needs_is_not_kept():
    class Forgets(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.extra = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            self.extra(self.conv(x)).mean()
            return self.conv(x)

    assert kept_by_call(Forgets(), (2, 5, 5), batch=2) == {("conv", 0): 2 * 2 * 25 * 4}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_peak_of_training_is_that_of_a_real_run(precision):
    model = network()
    measured = step_really(model, torch.zeros(4, 3, 64, 64), precision)
    memory = training_memory(model, (3, 64, 64), batch=4, optimizer="none", precision=precision)
    assert memory.peak == pytest.approx(measured, rel=0.05)
    assert memory.gradients == sum(parameter.nbytes for parameter in model.parameters())
    assert memory.weights == held_bytes(model)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("none", None),
        ("sgd", lambda weights: torch.optim.SGD(weights)),
        ("momentum", lambda weights: torch.optim.SGD(weights, momentum=0.9)),
        ("adamw", lambda weights: torch.optim.AdamW(weights)),
    ],
)
def test_optimisers_keep_what_real_ones_keep(name, made):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    model[0].requires_grad_(False)
    state = 0
    if made is not None:
        optimizer = made(model.parameters())
        model(torch.zeros(2, 3, 8, 8)).sum().backward()
        optimizer.step()
        kept = (value for state in optimizer.state.values() for value in state.values())
        state = sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))
    memory = training_memory(model, (3, 8, 8), batch=2, optimizer=name)
    plain = training_memory(model, (3, 8, 8), batch=2, optimizer="none")
    assert memory.optimizer == state
    assert memory.peak == plain.peak + state
    assert plain.under(name) == memory
    assert memory.under("none") == plain


def test_frozen_parameters_have_no_gradients_and_keep_less():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5, bias=False))
    whole = training_memory(model, (3, 8, 8), batch=2)
    model[0].requires_grad_(False)
    frozen = training_memory(model, (3, 8, 8), batch=2)
    assert whole.gradients - frozen.gradients == whole.optimizer - frozen.optimizer == 8 * 27 * 4
    assert whole.activations - frozen.activations == 2 * 3 * 64 * 4  # the images
    model.requires_grad_(False)
    assert training_memory(model, (3, 8, 8), batch=2).gradients == 0


def test_gradients_that_are_there_already_change_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 500))
    before = training_memory(model, (3, 8, 8), batch=2)
    model(torch.zeros(2, 3, 8, 8)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert training_memory(model, (3, 8, 8), batch=2) == before
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), gradients, strict=True))


def test_networks_with_several_outputs_are_trained_on_all():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            maps = self.first(x)
            return {"maps": maps, "mean": maps.mean(), "classes": [self.second(maps.mean((2, 3)))]}

    model = Two()
    assert training_memory(model, (3, 8, 8), batch=2).gradients == sum(p.nbytes for p in model.parameters())


class ChannelsLast(nn.Sequential):
    """Hands its layers images whose channels lie closest together, as a norm over channels leaves them."""

    def forward(self, x):
        return super().forward(x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 7, padding=3, groups=64),  # 16 blocks of which one number in 256 is used
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 128, 3, padding=1, groups=64),
        nn.Conv2d(64, 256, 3, padding=1),
    ],
    ids=["depthwise 7x7", "depthwise 3x3", "two outputs a group", "dense"],
)
def test_copies_of_weights_are_counted_as_a_real_run_takes_them(layer, precision):
    for model in (ChannelsLast(layer), nn.Sequential(layer)):
        measured = step_really(model, torch.zeros(4, 64, 8, 8), precision)
        said = training_memory(model, (64, 8, 8), batch=4, optimizer="none", precision=precision).peak
        assert said == pytest.approx(measured, rel=0.05)


class Sized(nn.Module):
    """Layers, and classes from the mean of each of their maps."""

    def __init__(self, *layers: nn.Module, channels: int, frozen: bool = False) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*layers), nn.Linear(channels, 5)
        self.body.requires_grad_(not frozen)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def two_convolutions(**options) -> tuple[nn.Module, ...]:
    return nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, **options), nn.ReLU()


SHALLOW = {
    "plain": lambda: Sized(*two_convolutions(padding=1), channels=32),
    "frozen": lambda: Sized(*two_convolutions(padding=1), channels=32, frozen=True),
    "dilated": lambda: Sized(*two_convolutions(padding=4, dilation=4), channels=32),
    "stride": lambda: Sized(*two_convolutions(stride=2), channels=32),
    "few channels": lambda: Sized(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.Conv2d(6, 10, 5), nn.Tanh(), channels=10),
    "groups": lambda: Sized(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3, groups=4), channels=64),
    "depthwise 5x5": lambda: Sized(nn.Conv2d(3, 24, 3), nn.Conv2d(24, 24, 5, groups=24), channels=24),
    "transposed": lambda: Sized(nn.Conv2d(3, 32, 3, 2), nn.ConvTranspose2d(32, 32, 4, 2), nn.ReLU(), channels=32),
    "transposed, stride 1": lambda: Sized(nn.ConvTranspose2d(3, 32, 3, bias=False), channels=32),
    "norms": lambda: Sized(
        nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(), channels=32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", SHALLOW)
def test_the_peak_of_shallow_and_frozen_networks_is_that_of_a_real_run(case, precision):
    model = SHALLOW[case]()
    measured = step_really(model, torch.zeros(4, 3, 40, 40), precision)
    memory = training_memory(model, (3, 40, 40), batch=4, optimizer="none", precision=precision)
    assert memory.peak == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("case", ["plain", "transposed", "groups"])
def test_the_peak_in_double_precision_is_that_of_a_real_run(case):
    model = SHALLOW[case]().double()
    measured = step_really(model, torch.zeros(4, 3, 40, 40, dtype=torch.double), "float32")
    assert training_memory(model, (3, 40, 40), batch=4, optimizer="none").peak == pytest.approx(measured, rel=0.05)


class Reads(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: type[nn.RNNBase], hidden: int, **options) -> None:
        super().__init__()
        self.layer = kind(96, hidden, batch_first=True, **options)
        self.head = nn.Linear(hidden * (2 if self.layer.bidirectional else 1), 5)

    def forward(self, x):
        return self.head(self.layer(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


@pytest.mark.parametrize(
    "made",
    [
        lambda: Reads(nn.LSTM, 128),
        lambda: Reads(nn.LSTM, 50, num_layers=2),
        lambda: Reads(nn.LSTM, 64, num_layers=2, bidirectional=True),
        lambda: Reads(nn.GRU, 64),
    ],
    ids=["LSTM", "two layers", "both directions", "GRU"],
)
def test_recurrent_layers_keep_what_a_real_run_keeps(made):
    model, images = made(), torch.zeros(32, 3, 32, 32)
    kept = sum(kept_by_call(model, (3, 32, 32), batch=32).values())
    assert kept == pytest.approx(kept_really(model, images), rel=0.01)
    measured = step_really(model, images, "float32")
    memory = training_memory(model, (3, 32, 32), batch=32, optimizer="none")
    assert memory.peak == pytest.approx(measured, rel=0.05)
    assert memory.activations == pytest.approx(kept, rel=0.01)


def test_gradients_of_parameters_that_are_used_twice_are_added_up():
    shared = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    twice = training_memory(nn.Sequential(shared, nn.ReLU(), shared), (4, 8, 8), batch=2, optimizer="none")
    assert twice.gradients == twice.weights == 4 * 4 * 9 * 4


def test_a_network_without_a_backward_pass_is_refused():
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, *gradients):
            raise NotImplementedError("only forward")

    class Net(nn.Sequential):
        def forward(self, x):
            return Forward.apply(super().forward(x))

    with pytest.raises(UsageError, match="Net has no backward pass: only forward"):
        training_memory(Net(nn.Conv2d(3, 2, 1)), (3, 4, 4), batch=2)


def test_tensors_that_a_network_holds_unregistered_are_its_own_memory():
    net = nn.Sequential(nn.Linear(5, 5, bias=False), nn.ReLU())
    plain = inference_bytes(record(net, (1, 5, 5)), net)

    class Holds(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.table = [torch.zeros(1, 1, 5, 5)]

        def forward(self, x):
            return super().forward(x).add_(self.table[0])

    holds = Holds(*net)
    assert inference_bytes(record(holds, (1, 5, 5)), holds) == plain + 100


def test_an_unknown_optimiser_and_an_impossible_batch_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8))
    with pytest.raises(UsageError, match="no optimiser 'lion'") as caught:
        training_memory(model, (3, 8, 8), batch=2, optimizer="lion")
    assert "adamw" in caught.value.mend
    with pytest.raises(UsageError, match=r"1 \(BatchNorm2d\).*more than 1 value") as caught:
        training_memory(model, (3, 8, 8), batch=1)
    assert "at least 2 images" in caught.value.mend


def test_the_peak_of_inference_by_hand():
    # 5 -> 40 numbers a row, changed in place, then 40 -> 10: the images, and both maps at once.
    model = nn.Sequential(nn.Linear(5, 40, bias=False), nn.ReLU(inplace=True), nn.Linear(40, 10, bias=False))
    rows = 2 * 5 * 4
    weights = (5 * 40 + 40 * 10) * 4
    assert held_bytes(model) == weights
    assert inference_bytes(record(model, (1, 5, 5), batch=2), model) == weights + (5 + 40 + 10) * rows


def test_the_peak_of_inference_is_that_of_a_real_run():
    model = network().eval()
    images = torch.zeros(4, 3, 64, 64)

    def step():
        with torch.no_grad():
            model(images)

    step()
    said = inference_bytes(record(model, (3, 64, 64), batch=4), model)
    assert said == pytest.approx(held_bytes(model) + images.nbytes + peak_really(step), rel=0.05)


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        ("efficientnet_b0", 2692),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("resnet50", 2622), ("convnext_tiny", 3331))),
    ],
)
def test_known_networks_keep_what_is_known_of_them(name, mebibytes):
    with torch.device("meta"):
        model = timm.create_model(name)
    kept = sum(kept_by_call(model, (3, 224, 224), batch=32).values())
    assert kept / MIB == pytest.approx(mebibytes, abs=1)
