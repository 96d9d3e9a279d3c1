"""Networks: built from a design, taken from a table or from the user's file, checked and counted.

Names are loaded when they are first used: kernels and sizes need no PyTorch, and lists of commands nothing at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PLACES = {
    "Parameters": "counting.analysis",
    "activation_bytes": "counting.analysis",
    "count_macs": "counting.analysis",
    "count_parameters": "counting.analysis",
    "NODES": "blocks",
    "ModelName": "published.catalogue",
    "build_named": "published.catalogue",
    "model_names": "published.catalogue",
    "refuse_options": "published.catalogue",
    "resolve": "published.catalogue",
    "size_options": "published.catalogue",
    "build": "convnet",
    "build_design": "convnet",
    "Head": "head",
    "find_head": "head",
    "head_inputs": "head",
    "replace_head": "head",
    "set_head": "head",
    "INITIALISATIONS": "initialisation",
    "initialise": "initialisation",
    "residual_ends": "initialisation",
    "KERNELS": "kernels.bank",
    "kernel_named": "kernels.bank",
    "Likeness": "kernels.match",
    "likenesses": "kernels.match",
    "convolve": "kernels.filtering",
    "padded": "kernels.filtering",
    "pooled": "kernels.filtering",
    "LAYERS": "layers",
    "LAYER_KINDS": "layers",
    "layer_parameters": "layers",
    "layer_shape": "layers",
    "Listing": "published.listing",
    "list_models": "published.listing",
    "match_models": "published.listing",
    "load_pretrained": "published.loading",
    "check_output": "own",
    "code_sha256": "own",
    "load_own": "own",
    "parse_arguments": "own",
    "Pretrained": "published.pretrained",
    "describe_weights": "published.pretrained",
    "grow_network": "rewriting.growing",
    "operate": "rewriting.operations",
    "OPERATIONS": "rewriting.operations",
    "change_output_stride": "rewriting.surgery",
    "dilate_last": "rewriting.surgery",
    "change_input_channels": "rewriting.surgery",
    "change_head": "rewriting.surgery",
    "change_resolution": "rewriting.surgery",
    "advise": "rewriting.savings",
    "rewrite": "rewriting.savings",
    "narrow": "rewriting.narrowing",
    "Field": "receptive",
    "Fields": "receptive",
    "last_map": "receptive",
    "receptive_fields": "receptive",
    "stage_maps": "receptive",
    "Signal": "signal",
    "signal_through_depth": "signal",
    "Stage": "staging",
    "stages": "staging",
    "Found": "published.weights",
    "find_weights": "published.weights",
    "read_weights": "published.weights",
    "sha256_of": "published.weights",
    "WinogradConv2d": "winograd",
    "multiplications": "winograd",
    "Fitted": "zoo",
    "MODELS": "zoo",
    "PRESETS": "zoo",
    "fit_design": "zoo",
    "preset": "zoo",
}
_NAMED_THERE = {"model_names": "names"}

__all__ = [
    "INITIALISATIONS",
    "KERNELS",
    "LAYERS",
    "LAYER_KINDS",
    "MODELS",
    "NODES",
    "OPERATIONS",
    "PRESETS",
    "Field",
    "Fields",
    "Fitted",
    "Found",
    "Head",
    "Likeness",
    "Listing",
    "ModelName",
    "Parameters",
    "Pretrained",
    "Signal",
    "Stage",
    "WinogradConv2d",
    "activation_bytes",
    "advise",
    "build",
    "build_design",
    "build_named",
    "change_head",
    "change_input_channels",
    "change_output_stride",
    "change_resolution",
    "check_output",
    "code_sha256",
    "convolve",
    "count_macs",
    "count_parameters",
    "describe_weights",
    "dilate_last",
    "find_head",
    "find_weights",
    "fit_design",
    "grow_network",
    "head_inputs",
    "initialise",
    "kernel_named",
    "last_map",
    "layer_parameters",
    "layer_shape",
    "likenesses",
    "list_models",
    "load_own",
    "load_pretrained",
    "match_models",
    "model_names",
    "multiplications",
    "narrow",
    "operate",
    "padded",
    "parse_arguments",
    "pooled",
    "preset",
    "read_weights",
    "receptive_fields",
    "refuse_options",
    "replace_head",
    "residual_ends",
    "resolve",
    "rewrite",
    "set_head",
    "sha256_of",
    "signal_through_depth",
    "size_options",
    "stage_maps",
    "stages",
]

if TYPE_CHECKING:
    from convsmith.networks.blocks import NODES
    from convsmith.networks.convnet import build, build_design
    from convsmith.networks.counting.analysis import Parameters, activation_bytes, count_macs, count_parameters
    from convsmith.networks.head import Head, find_head, head_inputs, replace_head, set_head
    from convsmith.networks.initialisation import INITIALISATIONS, initialise, residual_ends
    from convsmith.networks.kernels.bank import KERNELS, kernel_named
    from convsmith.networks.kernels.filtering import convolve, padded, pooled
    from convsmith.networks.kernels.match import Likeness, likenesses
    from convsmith.networks.layers import LAYER_KINDS, LAYERS, layer_parameters, layer_shape
    from convsmith.networks.own import check_output, code_sha256, load_own, parse_arguments
    from convsmith.networks.published.catalogue import ModelName, build_named, refuse_options, resolve, size_options
    from convsmith.networks.published.catalogue import names as model_names
    from convsmith.networks.published.listing import Listing, list_models, match_models
    from convsmith.networks.published.loading import load_pretrained
    from convsmith.networks.published.pretrained import Pretrained, describe_weights
    from convsmith.networks.published.weights import Found, find_weights, read_weights, sha256_of
    from convsmith.networks.receptive import Field, Fields, last_map, receptive_fields, stage_maps
    from convsmith.networks.rewriting.growing import grow_network
    from convsmith.networks.rewriting.narrowing import narrow
    from convsmith.networks.rewriting.operations import OPERATIONS, operate
    from convsmith.networks.rewriting.savings import advise, rewrite
    from convsmith.networks.rewriting.surgery import (
        change_head,
        change_input_channels,
        change_output_stride,
        change_resolution,
        dilate_last,
    )
    from convsmith.networks.signal import Signal, signal_through_depth
    from convsmith.networks.staging import Stage, stages
    from convsmith.networks.winograd import WinogradConv2d, multiplications
    from convsmith.networks.zoo import MODELS, PRESETS, Fitted, fit_design, preset


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'convsmith.networks' has no attribute {name!r}")
    place = importlib.import_module(f"convsmith.networks.{_PLACES[name]}")
    return getattr(place, _NAMED_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)
