"""The average of the weights, worked by hand."""

import copy

import torch
from torch import nn

from convsmith.training import Average


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    return net.to(memory_format=torch.channels_last)


def change(net, seed):
    """What a training step does: parameters, running statistics and the counter change."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator))
    net[1](torch.randn(4, 2, 5, 5, generator=generator))


def test_the_average_follows_its_formula_for_parameters_and_running_statistics():
    net, decay = make_net(), 0.25  # reached after two steps: 2/11, then 3/12
    average = Average(net, decay)
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(1, 6):
        change(net, step)
        average.update()
        d = min(decay, (1 + step) / (10 + step))
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = d * expected[name] + (1 - d) * tensor
            else:
                expected[name] = tensor.clone()
    with average.applied():
        for name, tensor in net.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
    assert net[1].num_batches_tracked == 5
    assert expected["1.running_mean"].abs().max() > 0


def test_a_first_average_worked_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    average = Average(net, 0.999)
    net.weight.data.fill_(12.0)
    average.update()
    with average.applied():
        torch.testing.assert_close(net.weight.item(), 1.0 * 2 / 11 + 12.0 * 9 / 11)


def test_within_the_block_the_average_is_used_and_after_it_the_raw_weights_are_back_bit_for_bit():
    net = make_net()
    average = Average(net, 0.9)
    change(net, 1)
    average.update()
    raw = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in net.state_dict().items()}
    image = torch.randn(2, 1, 3, 3)
    before = net.eval()(image)
    try:
        with average.applied():
            assert not torch.equal(net(image), before)
            raise RuntimeError("an error in the block must not leave the average behind")
    except RuntimeError:
        pass
    assert torch.equal(net(image), before)
    assert all(torch.equal(tensor, raw[name]) for name, tensor in net.state_dict().items())
    assert {name: tensor.data_ptr() for name, tensor in net.state_dict().items()} == places
    change(net.train(), 2)  # the average still follows the weights after it was applied
    average.update()
    with average.applied():
        inside = net[3].weight.clone()
    assert not torch.equal(inside, raw["3.weight"])
    assert average.updates == 2


def test_its_state_goes_on_where_it_was():
    nets = make_net(), make_net()
    first, second = (Average(net, 0.9) for net in nets)
    for net in nets:
        change(net, 1)
    first.update()
    second.load_state_dict({"updates": 1, "weights": {k: v.clone() for k, v in first.state_dict()["weights"].items()}})
    for net, average in zip(nets, (first, second), strict=True):
        change(net, 2)
        average.update()
    left, right = first.state_dict()["weights"], second.state_dict()["weights"]
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert first.updates == second.updates == 2


def test_tied_weights_are_averaged_once():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    average = Average(net, 0.5)
    with torch.no_grad():
        net[0].weight.add_(1)
    average.update()
    with average.applied():
        assert net[0].weight is net[1].weight
        assert net.state_dict()["0.weight"].data_ptr() == net.state_dict()["1.weight"].data_ptr()


def test_blended_weights_lie_between_the_first_and_the_averaged_ones():
    model = nn.Linear(3, 2)
    first = model.weight.detach().clone()
    plain, blended = Average(model, 0.5), Average(model, 0.5, blend=0.25)
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        plain.update()
        blended.update()
    raw = model.weight.detach().clone()
    with plain.applied():
        averaged = model.weight.detach().clone()
    with blended.applied():
        torch.testing.assert_close(model.weight.detach(), 0.75 * first + 0.25 * averaged)
    with blended.applied(blended=False):
        assert torch.equal(model.weight, averaged)
    assert torch.equal(model.weight, raw)


def test_the_first_weights_survive_a_checkpoint():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = Average(model, 0.5, blend=0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    state = copy.deepcopy(average.state_dict())
    with average.applied():
        expected = model.weight.detach().clone()
    torch.manual_seed(1)
    other = nn.Linear(3, 2)  # drawn anew, as a resumed run's network is
    restored = Average(other, 0.5, blend=0.5)
    restored.load_state_dict(state)
    with restored.applied():
        assert torch.equal(other.weight, expected)
