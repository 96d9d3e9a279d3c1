"""Networks: built from a design, taken from a table or from the user's file, checked and counted."""

from convsmith.networks.analysis import Parameters, activation_bytes, count_macs, count_parameters
from convsmith.networks.convnet import build, build_design
from convsmith.networks.layers import LAYERS
from convsmith.networks.own import check_output, code_sha256, load_own, parse_arguments
from convsmith.networks.zoo import MODELS, PRESETS, Fitted, fit_design

__all__ = [
    "LAYERS",
    "MODELS",
    "PRESETS",
    "Fitted",
    "Parameters",
    "activation_bytes",
    "build",
    "build_design",
    "check_output",
    "code_sha256",
    "count_macs",
    "count_parameters",
    "fit_design",
    "load_own",
    "parse_arguments",
]
