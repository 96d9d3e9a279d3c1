"""Networks: built from a design, taken from a table or from the user's file, checked and counted."""

from convsmith.networks.analysis import Parameters, activation_bytes, count_macs, count_parameters
from convsmith.networks.catalogue import ModelName, build_named, refuse_options, resolve, size_options
from convsmith.networks.catalogue import names as model_names
from convsmith.networks.convnet import build, build_design
from convsmith.networks.head import Head, find_head, head_inputs, replace_head, set_head
from convsmith.networks.layers import LAYERS
from convsmith.networks.listing import Listing, list_models, match_models
from convsmith.networks.loading import load_pretrained
from convsmith.networks.own import check_output, code_sha256, load_own, parse_arguments
from convsmith.networks.pretrained import Pretrained, describe_weights
from convsmith.networks.stages import Stage, stages
from convsmith.networks.weights import Found, find_weights, read_weights, sha256_of
from convsmith.networks.zoo import MODELS, PRESETS, Fitted, fit_design

__all__ = [
    "LAYERS",
    "MODELS",
    "PRESETS",
    "Fitted",
    "Found",
    "Head",
    "Listing",
    "ModelName",
    "Parameters",
    "Pretrained",
    "Stage",
    "activation_bytes",
    "build",
    "build_design",
    "build_named",
    "check_output",
    "code_sha256",
    "count_macs",
    "count_parameters",
    "describe_weights",
    "find_head",
    "find_weights",
    "fit_design",
    "head_inputs",
    "list_models",
    "load_own",
    "load_pretrained",
    "match_models",
    "model_names",
    "parse_arguments",
    "read_weights",
    "refuse_options",
    "replace_head",
    "resolve",
    "set_head",
    "sha256_of",
    "size_options",
    "stages",
]
