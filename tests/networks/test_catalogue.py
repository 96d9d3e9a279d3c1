"""Names of networks, what is published about their weights, and lists of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
import torchvision

from convsmith.errors import UsageError
from convsmith.networks import (
    ModelName,
    build_named,
    count_parameters,
    describe_weights,
    list_models,
    match_models,
    resolve,
    size_options,
)


def refused(name: str, **options: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        build_named(name, 3, 5, **options)
    return caught.value


def test_names_are_found_in_our_table_then_timm_then_torchvision():
    assert resolve("convnet-small") == ModelName("convsmith", "convnet-small")
    assert resolve("resnet18") == ModelName("timm", "resnet18")
    assert resolve("squeezenet1_0") == ModelName("torchvision", "squeezenet1_0")
    assert resolve("torchvision/resnet18") == ModelName("torchvision", "resnet18")
    assert resolve("timm/resnet50.a1_in1k").tag == "a1_in1k"
    assert str(resolve("resnet18")) == "timm/resnet18"


def test_an_old_name_of_timm_leads_to_the_new_one():
    old, new = next((old, new) for old, new in timm.models.get_deprecated_models().items() if new)
    assert resolve(old).architecture == new.partition(".")[0]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("resnet5o", "resnet50"),
        ("convnet-smal", "convnet-small"),
        ("timm/squeezenet1_0", "torchvision/squeezenet1_0"),
        ("sqeezenet1_1", "squeezenet1_1"),
        ("resnet50.a9_in1k", "a3_in1k"),
        ("torchvision/resnet50.V1", "IMAGENET1K_V1"),
        ("keras/resnet50", "timm/NAME"),
        ("hf-hub:timm/resnet18", "timm/NAME"),
        ("qqqqqq", "convsmith models"),
        ("torchvision/fcn_resnet50", "resnet50"),
        ("torchvision/r3d_18", "torchvision"),
    ],
)
def test_a_wrong_name_is_answered_with_the_close_ones_of_all_libraries(name: str, offered: str):
    error = refused(name)
    assert offered in error.mend + error.message
    assert len(str(error).splitlines()) == 1


def test_our_own_names_load_no_other_library():
    code = (
        "import sys\nfrom convsmith.networks import build_named\nbuild_named('convnet-tiny', 1, 3)\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "name", ["convnet-tiny", "mobilenetv3_small_050", "torchvision/googlenet", "torchvision/densenet121"]
)
def test_any_number_of_channels_is_built(name: str, channels: int):
    model = build_named(name, channels, 5).eval()
    with torch.no_grad():
        output = model(torch.rand(2, channels, 64, 64))
    assert output.shape == (2, 5)
    assert bool(torch.isfinite(output).all())


def test_a_replaced_first_convolution_keeps_the_size_of_what_comes_out():
    torch.manual_seed(0)
    models = [build_named("torchvision/resnet18", channels, 5) for channels in (1, 3, 12)]
    with torch.no_grad():
        spreads = [float(model.conv1(torch.randn(4, model.conv1.in_channels, 64, 64)).std()) for model in models]
    assert spreads == pytest.approx([spreads[1]] * 3, rel=0.15)


def test_the_same_seed_draws_the_same_weights():
    def made() -> torch.Tensor:
        torch.manual_seed(3)
        return build_named("torchvision/shufflenet_v2_x0_5", 1, 4).conv1[0].weight

    assert torch.equal(made(), made())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"wdth": 3}),
        ("torchvision/resnet18", {"wdth": 3}),
        ("convnet", {"wdth": 3}),
        ("resnet18", {"pretrained": True}),
        ("resnet18", {"checkpoint_path": "x.pth"}),
        ("resnet18", {"pretrained_cfg_overlay": {"file": "x.pth"}}),
        ("torchvision/resnet18", {"weights": "DEFAULT"}),
        ("resnet18", {"num_classes": 3}),
        ("vit_tiny_patch16_224", {"img_size": "large"}),
    ],
)
def test_options_that_do_not_fit_or_would_load_files_are_refused_by_name(name: str, options: dict[str, object]):
    error = refused(name, **options)
    assert next(iter(options)) in error.message


def test_options_reach_the_builder():
    assert build_named("resnet18", 3, 5, drop_path_rate=0.2).layer4[1].drop_path is not None
    assert build_named("torchvision/mobilenet_v3_small", 3, 5, dropout=0.4).classifier[2].p == 0.4
    wide = count_parameters(build_named("convnet", 3, 5, width=32)).total
    assert wide > count_parameters(build_named("convnet", 3, 5, width=16)).total


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 96), ("torchvision/vit_b_32", 96)])
def test_a_network_of_one_size_is_made_for_another(name: str, size: int):
    options = size_options(name, size)
    model = build_named(name, 3, 5, **options).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, size, size)).shape == (1, 5)
    assert size_options("resnet18", size) == {}
    assert size_options("vit_tiny_patch16_224", 224) == {}


def test_what_is_published_of_timm_is_timms_own():
    found = describe_weights("tf_efficientnet_lite0")
    config = timm.data.resolve_data_config({}, model=timm.create_model("tf_efficientnet_lite0"))
    assert found is not None
    assert (found.mean, found.std, found.input_size) == (config["mean"], config["std"], config["input_size"])
    assert (found.keep, found.interpolation) == (config["crop_pct"], config["interpolation"])
    assert (found.tag, found.hub_id, found.licence) == ("in1k", "timm/tf_efficientnet_lite0.in1k", "apache-2.0")
    assert len(found.classes) == len(found.wnids) == found.outputs == 1000
    assert (found.wnids[0], found.classes[0]) == ("n01440764", "tench, Tinca tinca")


def test_what_is_published_of_torchvision_is_torchvisions_own():
    found = describe_weights("torchvision/resnet50")
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    assert found is not None
    assert found.tag == weights.name
    assert list(found.classes) == weights.meta["categories"]
    assert found.keep == pytest.approx(224 / 232)
    assert found.sha256 == "11ad3fa6"
    assert found.url == weights.url
    older = describe_weights("torchvision/resnet50.IMAGENET1K_V1")
    assert older is not None
    assert older.keep == 0.875
    assert describe_weights("convnet-small") is None


def test_inception_is_given_images_as_its_own_transformation_would_make_them():
    found = describe_weights("torchvision/googlenet")
    assert found is not None
    image = torch.rand(1, 3, 8, 8)
    given = torchvision.models.GoogLeNet_Weights.DEFAULT.transforms()
    net = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (given.mean, given.std))
    expected = net._transform_input((image - mean) / std)
    half, spread = (torch.tensor(values).reshape(3, 1, 1) for values in (found.mean, found.std))
    torch.testing.assert_close((image - half) / spread, expected)


def test_a_list_tells_parameters_size_licence_and_where_the_weights_are():
    (row,) = list_models("timm/resnet18")[:1]
    assert row.name == "resnet18"
    assert row.parameters == count_parameters(timm.create_model("resnet18")).total == 11_689_512
    assert (row.input_size, row.licence) == ((3, 224, 224), "apache-2.0")
    assert row.weights in {"hub", "here"}
    assert {row.name for row in list_models("convsmith/*")} >= {"convnet", "convnet-small"}


def test_a_name_that_two_libraries_have_is_listed_as_it_must_be_typed():
    rows = {row.library: row for row in list_models("resnet18") if row.name.endswith("resnet18")}
    assert rows["timm"].name.endswith("resnet18")
    assert [row.name for row in list_models("torchvision/resnet18")] == ["torchvision/resnet18"]
    assert [row.name for row in list_models("torchvision/squeezenet1_1")] == ["squeezenet1_1"]
    for row in rows.values():
        assert resolve(row.name).library == row.library


def test_regnet_of_torchvision_is_counted_although_it_computes_while_it_is_built():
    (row,) = list_models("torchvision/regnet_y_400mf")
    published = torchvision.models.RegNet_Y_400MF_Weights.DEFAULT.meta["num_params"]
    assert row.parameters == published


def test_a_pattern_with_a_dot_lists_published_weights_one_by_one():
    names = {name.name for name in match_models("timm/resnet50.*")}
    assert {"resnet50.a1_in1k", "resnet50.tv_in1k"} <= names
    assert {name.name for name in match_models("resnet50")} >= {"resnet50", "seresnet50"}
    assert match_models("resnet50")[0] == ModelName("timm", "resnet50")
    assert match_models("no such*") == []
