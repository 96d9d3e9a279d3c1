"""What a recorded graph says of a network, and what recording leaves behind: nothing."""

import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convsmith.errors import UsageError
from convsmith.networks.recording.graph import WRITTEN, Graph, Ref, record
from convsmith.networks.recording.imagined import ValuesNeeded


class Does(nn.Module):
    """A network that is one function."""

    def __init__(self, function, **parts) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def targets(graph: Graph) -> list[str]:
    return [operation.target for operation in graph.operations]


def ancestors(graph: Graph, value: int) -> set[int]:
    """All values from which one is computed."""
    producer, found, todo = graph.producer(), set(), [value]
    while todo:
        if (operation := producer.get(todo.pop())) is not None:
            new = set(graph.operations[operation].inputs) - found
            found |= new
            todo += new
    return found


def test_a_convolution_is_one_operation_with_named_arguments():
    graph = record(nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 9), batch=2)
    (operation,) = graph.operations
    arguments = operation.arguments
    assert operation.target == "aten.convolution.default"
    assert operation.name == "convolution"
    assert [graph.values[index].kind for index in operation.inputs] == ["input", "parameter", "parameter"]
    assert [graph.values[index].name for index in operation.inputs] == ["", "weight", "bias"]
    assert arguments["weight"] == Ref(operation.inputs[1])
    assert (tuple(arguments["stride"]), tuple(arguments["dilation"]), arguments["groups"]) == ((2, 2), (1, 1), 1)
    made = graph.values[operation.outputs[0]]
    assert (made.shape, made.kind, made.bytes, made.elements) == ((2, 8, 5, 5), "result", 2 * 8 * 25 * 4, 400)
    assert graph.inputs == operation.inputs[:1]
    assert graph.outputs == operation.outputs
    assert graph.producer() == {operation.outputs[0]: 0}
    assert graph.readers() == dict.fromkeys(operation.inputs, (0,))


def test_a_tensor_changed_in_place_is_another_value_in_the_same_memory():
    graph = record(Does(lambda net, x: (x * 2).relu_() + 1), (1, 2, 2))
    doubled, active = graph.operations[0].outputs[0], graph.operations[1].outputs[0]
    assert targets(graph) == ["aten.mul.Tensor", "aten.relu_.default", "aten.add.Tensor"]
    assert doubled != active
    assert graph.values[doubled].storage == graph.values[active].storage
    assert graph.operations[2].inputs == (active,)


def test_what_is_written_through_a_view_reaches_the_tensor_that_shares_its_memory():
    def through(net, x):
        whole = x * 2
        whole[:, :1].copy_(net.other(x))
        return whole + 1

    graph = record(Does(through, other=nn.Conv2d(1, 1, 1)), (1, 2, 2))
    assert WRITTEN in targets(graph)
    convolved = next(operation.outputs[0] for operation in graph.operations if operation.name == "convolution")
    assert convolved in ancestors(graph, graph.outputs[0])


def test_what_was_read_before_a_write_is_the_value_before_it():
    def before(net, x):
        whole = x * 2
        early = whole + 1
        whole.mul_(0)
        return early

    graph = record(Does(before), (1, 2, 2))
    multiplied = next(operation for operation in graph.operations if operation.target == "aten.mul_.Tensor")
    assert not set(multiplied.outputs) & ancestors(graph, graph.outputs[0])


def test_a_module_that_is_called_twice_has_two_calls_and_one_set_of_parameters():
    graph = record(Does(lambda net, x: net.shared(net.shared(x)), shared=nn.Conv2d(2, 2, 1)), (2, 3, 3))
    calls = [call for call in graph.calls if call.path == "shared"]
    first, second = (graph.operations[call.start] for call in calls)
    assert [call.leaf for call in graph.calls] == [False, True, True]
    assert [call.parent for call in calls] == [0, 0]
    assert (first.call, second.call) == (1, 2)
    assert first.inputs[1:] == second.inputs[1:]
    assert calls[1].inputs == calls[0].outputs
    assert graph.calls[0].outputs == graph.outputs == calls[1].outputs


def test_parameters_under_two_names_are_one_value():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    graph = record(nn.Sequential(nn.Flatten(), model), (1, 2, 2))
    assert [value.name for value in graph.values if value.kind == "parameter"] == ["1.0.weight", "1.0.bias", "1.1.bias"]


def test_functional_work_belongs_to_the_module_whose_forward_does_it():
    block = Does(lambda net, x: F.relu(net.conv(x)) + x, conv=nn.Conv2d(2, 2, 1))
    graph = record(nn.Sequential(block), (2, 3, 3))
    assert [(operation.name, operation.module) for operation in graph.operations] == [
        ("convolution", "0.conv"), ("relu", "0"), ("add", "0"),
    ]  # fmt: skip
    block_call = next(call for call in graph.calls if call.path == "0")
    assert (block_call.start, block_call.stop, block_call.leaf) == (0, 3, False)


@pytest.mark.parametrize(
    "returned", [lambda net, x: {"out": x + 1, "aux": [x * 2]}, lambda net, x: (x + 1, (x * 2, "words"))]
)
def test_outputs_in_mappings_lists_and_tuples_are_all_found(returned):
    graph = record(Does(returned), (1, 2, 2))
    assert [graph.operations[graph.producer()[value]].name for value in graph.outputs] == ["add", "mul"]


def test_memory_is_given_back_when_python_lets_go_of_it():
    def briefly(net, x):
        first = x * 2
        second = first + 1
        del first
        third = second * 3
        return third - second

    graph = record(Does(briefly), (1, 2, 2))
    first, second, third, last = (graph.values[operation.outputs[0]].storage for operation in graph.operations)
    assert graph.freed == {first: 2, second: 4, third: 4}  # after so many operations
    assert last not in graph.freed


def test_an_address_that_is_used_again_is_another_memory():
    def again(net, x):
        for _ in range(20):
            x = x * 2
        return x

    graph = record(Does(again), (1, 2, 2))
    assert len({graph.values[operation.outputs[0]].storage for operation in graph.operations}) == 20


def test_the_attention_of_torch_is_seen_in_its_steps():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    model = Attention()
    names = {operation.name for operation in record(model, (8, 3, 3)).operations}
    assert "_native_multi_head_attention" not in names
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_without_data_is_recorded_like_one_with():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    with torch.device("meta"):
        empty = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    graph, other = record(model, (3, 5, 5)), record(empty, (3, 5, 5))
    assert graph == other
    assert all(parameter.is_meta for parameter in empty.parameters())


def test_constants_that_are_not_registered_are_values_and_stay_as_they_were():
    scale = torch.ones(1)
    net = Does(lambda net, x: x * net.held["scale"].add_(1))
    net.held = {"scale": scale}
    graph = record(net, (1, 2, 2))
    assert [value.kind for value in graph.values] == ["input", "constant", "result", "result"]
    assert graph.operations[1].inputs == (0, 2)
    assert scale.item() == 1
    assert net(torch.ones(1, 1, 1, 1)).item() == 2


class Restless(nn.Module):
    """Changes what a forward pass can change, and keeps tensors from one call to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("last", torch.zeros(()))
        self.kept: dict[str, torch.Tensor] = {}
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        with torch.no_grad():
            self.weight += 1
        self.last = x.mean() + 1
        self.kept["bias"] = self.weight * 2
        self.seen.append(x)
        self.norm.note = x
        noise = torch.rand(1) + random.random() + np.random.rand()
        return self.norm(x + self.kept["bias"]) * noise


@pytest.mark.parametrize("training", [False, True])
def test_recording_leaves_no_trace(training):
    model = Restless()
    model.norm.eval()
    model.weight.grad = torch.full((1,), 5.0)
    before = {key: (value, value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    record(model, (1, 4, 4), training=training)
    after = model.state_dict(keep_vars=True)
    assert all(after[key] is tensor and torch.equal(tensor, numbers) for key, (tensor, numbers) in before.items())
    assert (model.training, model.norm.training) == (True, False)
    assert (model.kept, model.seen, hasattr(model.norm, "note")) == ({}, [], False)
    assert model.weight.grad.item() == 5
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1], states[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    assert model(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)


def test_a_failing_network_is_refused_with_the_module_and_left_without_hooks():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(9, 4, 1)))
    with pytest.raises(UsageError, match=r"fails on images of 3x8x8 in 1\.1 \(Conv2d\)") as caught:
        record(model, (3, 8, 8))
    assert "--input" in caught.value.mend
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    assert model.training


@pytest.mark.parametrize(
    "asks", [lambda net, x: x if x.sum() > 0 else -x, lambda net, x: x[x > 0], lambda net, x: x * x.max().item()]
)
def test_a_network_that_asks_for_values_of_the_image_is_refused_with_its_place(asks):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Does(asks))
    with pytest.raises(ValuesNeeded, match=r"asks for values of the image in 1 \(Does\)"):
        record(model, (1, 4, 4))


def test_lazy_parameters_are_refused_with_the_mend():
    with pytest.raises(UsageError, match="lazy parameters") as caught:
        record(nn.Sequential(nn.LazyConv2d(4, 3)), (3, 8, 8))
    assert "Call it once" in caught.value.mend


def test_training_mode_is_that_of_the_modules_inside():
    net = nn.Sequential(nn.Dropout(0.5))
    assert targets(record(net, (1, 2, 2))) == []
    assert "aten.bernoulli_.float" in targets(record(net, (1, 2, 2), training=True))


@dataclass
class Answer:
    """What a network may return."""

    scores: torch.Tensor
    classes: int = 4


class Plain:
    """The same without dataclasses; it holds itself, too."""

    def __init__(self, scores):
        self.scores, self.own = scores, self


@pytest.mark.parametrize("form", [Answer, Plain, lambda scores: SimpleNamespace(scores=(scores,))])
def test_tensors_are_seen_in_dataclasses_and_plain_objects_that_a_network_returns(form):
    graph = record(Does(lambda net, x: form(net.conv(x)), conv=nn.Conv2d(1, 4, 3)), (1, 6, 6))
    assert [graph.values[output].shape for output in graph.outputs] == [(1, 4, 4, 4)]
    assert graph.calls[-1].outputs


@pytest.mark.parametrize(("output", "says"), [(None, "returns nothing"), ([3], "an object of type list")])
def test_a_network_that_returns_no_tensor_is_refused(output, says):
    with pytest.raises(UsageError, match=f"{says}, in which no tensor is seen"):
        record(Does(lambda net, x: output), (1, 4, 4))


@pytest.mark.parametrize("made", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(1, 1, 4, 4))])
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_is_compiled_by_torchscript_is_refused_with_the_mend(made):
    for model in (made(nn.Conv2d(1, 2, 3)), nn.Sequential(made(nn.Conv2d(1, 2, 3)))):
        with pytest.raises(UsageError, match="compiled by TorchScript") as caught:
            record(model, (1, 4, 4))
        assert "Python network" in caught.value.mend


def test_a_network_that_asks_for_values_of_a_mask_of_its_own_is_not_said_to_ask_for_the_image():
    model = Does(lambda net, x: net.conv(x)[:, net.mask], conv=nn.Conv2d(1, 3, 1))
    model.register_buffer("mask", torch.tensor([True, False, True]))
    with pytest.raises(ValuesNeeded, match="asks for values of a tensor of its own"):
        record(model, (1, 4, 4))
