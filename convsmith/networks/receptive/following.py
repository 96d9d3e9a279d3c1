"""Which rule follows which ATen operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convsmith.networks.receptive import computing, rearranging
from convsmith.networks.receptive.reading import Reading, Rule
from convsmith.networks.receptive.spread import Spread, UnfollowedError, alike, expanded, joined, reduced
from convsmith.networks.recording.graph import WRITTEN, Operation, Ref


def follow(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """What the results of an operation draw on, in their order; those that are missing are not followed.

    Args:
        reading: in which none of the operation's inputs is unknown.
        operation: with at least one input that depends on the image.

    Raises:
        UnfollowedError: it is not known, with the reason.
    """
    if operation.target == WRITTEN:
        return _written(reading, operation)
    rule = rule_of(operation)
    try:
        if rule is None:
            raise UnfollowedError("this operation is not followed")
        return _by(rule, reading, operation)
    except UnfollowedError:
        found = reading.images(operation)
        if any(spread.moved(dim) for spread in found for dim in range(len(spread.dims))):
            raise
        # Whatever is done with values that all draw on one and the same region draws on that region.
        region = joined([reduced(spread, range(len(spread.dims)), keep=False) for spread in found], ())
        return [expanded(region, reading.shape(output)) for output in operation.outputs]


def rule_of(operation: Operation) -> Rule | None:
    """The rule by which an operation is followed, if there is one."""
    rule = _set if operation.name in SETS else RULES.get(operation.name)
    return computing.pointwise if rule is None and pointwise(operation.target) else rule


def _by(rule: Rule, reading: Reading, operation: Operation) -> Sequence[Spread]:
    """What a rule says; a form of the operation that it was not written for is one that is not followed."""
    try:
        return rule(reading, operation)
    except (IndexError, KeyError, ValueError, StopIteration) as error:
        raise UnfollowedError("this form of it is not followed") from error


def _written(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """A tensor whose memory was written to under other names: all that were must draw on the same."""
    known, *writes = operation.inputs
    spread = reading.spreads.get(known)
    others = [reading.spreads[write] for write in writes if write in reading.spreads]
    if spread is None or not all(alike(spread, other) for other in others):
        raise UnfollowedError("memory written through a view of it")
    return [spread]


def pointwise(target: str) -> bool:
    """Whether an operation works on each number by itself, as torch says."""
    if target == WRITTEN:
        return False
    library, name, overload = target.split(".")
    return torch.Tag.pointwise in getattr(getattr(getattr(torch.ops, library), name), overload).tags


def _names(names: str) -> list[str]:
    return names.split()


def _table(rows: Sequence[tuple[Rule, str]]) -> dict[str, Rule]:
    return {name: rule for rule, names in rows for name in _names(names)}


SETS = _names(
    "empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_zeros new_ones new_full fill zero "
    "normal uniform bernoulli"
)
"""Operations whose results do not depend on the numbers in `self`, only on what else they are given, if anything."""
CHANCES = _names("aten.bernoulli.default aten.bernoulli.out")
"""Of these, those to which the numbers in `self` are what is drawn from."""


def sets(reading: Reading, operation: Operation) -> bool:
    """Whether an operation's results hold new numbers, which do not depend on the image."""
    return operation.name in SETS and all(reading.free(value) for value in decisive(operation))


def decisive(operation: Operation) -> list[int]:
    """The inputs whose numbers decide which ones an operation sets."""
    given = operation.arguments.items()
    own = operation.target in CHANCES
    return [value.index for name, value in given if isinstance(value, Ref) and (own or name != "self")]


def _set(reading: Reading, operation: Operation) -> Sequence[Spread]:
    """Numbers in place of others, or drawn anew, that hang on the image."""
    found = [reading.spreads[value] for value in decisive(operation) if value in reading.spreads]
    return [joined(found, reading.made(operation))]


RULES = _table(
    [
        (
            computing.pointwise,  # what torch does not tag as such
            "_to_copy alias detach lift_fresh lift contiguous dropout native_dropout feature_dropout hardswish "
            "_prelu_kernel rrelu_with_noise log_sigmoid_forward channel_shuffle native_channel_shuffle",
        ),
        (computing.copied, "copy"),
        (computing.convolution, "convolution _convolution"),
        (
            computing.pooling,
            "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices "
            "avg_pool1d avg_pool2d avg_pool3d",
        ),
        (
            computing.adaptive_pooling,
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
            "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        ),
        (
            computing.enlarging,
            "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
            "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d",
        ),
        (
            computing.reducing,
            "mean sum nansum amax amin max min prod var std var_mean std_mean linalg_vector_norm norm logsumexp argmax "
            "argmin any all",
        ),
        (computing.mixing, "_softmax _log_softmax _safe_softmax softmax log_softmax"),
        (computing.running, "cumsum cumprod sort"),
        (computing.product, "mm addmm bmm baddbmm linear"),
        (
            computing.attention,
            "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention "
            "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
            "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable",
        ),
        (computing.channel_norm, "native_layer_norm rms_norm _fused_rms_norm"),
        (computing.group_norm, "native_group_norm"),
        (
            computing.batch_norm,
            "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
            "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update",
        ),
        (computing.halving, "glu"),
        (rearranging.padding, "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"),
        (rearranging.slicing, "slice narrow"),
        (rearranging.selecting, "select"),
        (rearranging.splitting, "split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unbind"),
        (rearranging.joining, "cat stack"),
        (rearranging.viewing, "view _unsafe_view reshape _reshape_alias"),
        (rearranging.striding, "as_strided"),
        (rearranging.permuting, "permute transpose t numpy_T"),
        (rearranging.squeezing, "squeeze"),
        (rearranging.unsqueezing, "unsqueeze"),
        (rearranging.repeating, "expand"),
        (rearranging.tiling, "repeat"),
        (rearranging.rolling, "roll"),
        (rearranging.flipping, "flip"),
        (rearranging.shuffling, "pixel_shuffle pixel_unshuffle"),
        (rearranging.patching, "im2col"),
        (rearranging.unfolding, "unfold"),
        (rearranging.picking, "index index_select"),
    ]
)
"""By the operation's name without in-place underscore and overload; others are followed where they are pointwise."""
