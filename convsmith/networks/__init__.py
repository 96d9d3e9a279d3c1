"""Networks: built from a design, taken from a table or from the user's file, checked and counted."""

from convsmith.networks.analysis import Parameters, activation_bytes, count_macs, count_parameters
from convsmith.networks.blocks import NODES
from convsmith.networks.catalogue import ModelName, build_named, refuse_options, resolve, size_options
from convsmith.networks.catalogue import names as model_names
from convsmith.networks.convnet import build, build_design
from convsmith.networks.head import Head, find_head, head_inputs, replace_head, set_head
from convsmith.networks.initialisation import INITIALISATIONS, initialise, residual_ends
from convsmith.networks.kernel_bank import KERNELS, kernel_named
from convsmith.networks.kernel_match import Likeness, likenesses
from convsmith.networks.kernels import convolve, padded, pooled
from convsmith.networks.layers import LAYER_KINDS, LAYERS, layer_parameters, layer_shape
from convsmith.networks.listing import Listing, list_models, match_models
from convsmith.networks.loading import load_pretrained
from convsmith.networks.own import check_output, code_sha256, load_own, parse_arguments
from convsmith.networks.pretrained import Pretrained, describe_weights
from convsmith.networks.receptive import Field, Fields, last_map, receptive_fields, stage_maps
from convsmith.networks.signal import Signal, signal_through_depth
from convsmith.networks.stages import Stage, stages
from convsmith.networks.weights import Found, find_weights, read_weights, sha256_of
from convsmith.networks.winograd import WinogradConv2d, multiplications
from convsmith.networks.zoo import MODELS, PRESETS, Fitted, fit_design, preset

__all__ = [
    "INITIALISATIONS",
    "KERNELS",
    "LAYERS",
    "LAYER_KINDS",
    "MODELS",
    "NODES",
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
    "build",
    "build_design",
    "build_named",
    "check_output",
    "code_sha256",
    "convolve",
    "count_macs",
    "count_parameters",
    "describe_weights",
    "find_head",
    "find_weights",
    "fit_design",
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
    "set_head",
    "sha256_of",
    "signal_through_depth",
    "size_options",
    "stage_maps",
    "stages",
]
