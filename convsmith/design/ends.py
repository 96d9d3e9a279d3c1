"""The two ends of a network: the stem, which sees the image, and the head, which gives the logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from convsmith.design import units
from convsmith.design.nodes import (
    Activation,
    ClassMaps,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Frozen,
    GridPool,
    Kernel,
    Linear,
    Padding,
    Parts,
    Pool,
    Rate,
    Stride,
    Width,
)
from convsmith.design.units import Style, conv_norm_act


class Stem(Frozen):
    """The first layers, on the image itself.

    Args:
        kind: `conv` is one convolution, such as 3x3, or 7x7 at stride 2 (He et al. 2016); `deep` is three of 3x3, of
            which the first has the stride (He et al. 2019, figure 2b); `patchify` takes patches of `stride` pixels
            that do not overlap, without activation (Liu et al. 2022, section 2.2).
        width: channels it leaves.
        kernel: side of a window; 3 where it is left out, and for patches their side.
        stride: what the image's sides are divided by, before pooling.
        padding: of the convolution; None keeps the size at stride 1, and 0 is `valid`.
        active: whether norm and activation follow the last convolution; not where blocks begin with their own.
        pool: pooling afterwards, in windows of 3 x 3 at stride 2.
        hidden: channels of the first two convolutions of `deep`; half of `width` where it is left out.
    """

    kind: Literal["conv", "deep", "patchify"] = "conv"
    width: Width
    kernel: Kernel = 3
    stride: Stride = 1
    padding: Padding | None = None
    active: bool = True
    pool: Literal["none", "max", "average"] = "none"
    hidden: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _patches(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("kind") == "patchify" and "kernel" not in value:
            return {**value, "kernel": value.get("stride", 1)}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Stem:
        if self.kind == "patchify":
            if self.stride == 1:
                raise ValueError("patches of 1 x 1 pixel see nothing: give `stride`, such as 4")
            if self.kernel != self.stride:
                raise ValueError(f"patches do not overlap: kernel {self.kernel} must be the stride {self.stride}")
        elif self.kernel % 2 == 0 and self.padding is None:
            raise ValueError(f"kernel {self.kernel} is even: give an odd one, so that padding is equal on both sides")
        if self.kind != "conv" and self.padding is not None:
            raise ValueError(f"a stem of kind {self.kind!r} takes no padding")
        if self.kind != "deep" and self.hidden is not None:
            raise ValueError(f"a stem of kind {self.kind!r} has no hidden channels")
        return self

    @property
    def divides(self) -> int:
        """What each side of the image has been divided by at its end."""
        return self.stride * (1 if self.pool == "none" else 2)

    def parts(self, style: Style) -> Parts:
        """Its layers by name."""
        match self.kind:
            case "conv":
                layers = conv_norm_act(style, self.width, kernel=self.kernel, stride=self.stride, padding=self.padding)
            case "deep":
                hidden = self.hidden or max(1, self.width // 2)
                first = conv_norm_act(style, hidden, kernel=self.kernel, stride=self.stride, mark="1")
                second = conv_norm_act(style, hidden, kernel=self.kernel, mark="2")
                layers = (*first, *second, *conv_norm_act(style, self.width, kernel=self.kernel, mark="3"))
            case "patchify":
                layers = (*units.patches(style, self.width, self.stride), *units.norm(style))
        if not self.active:
            last = max(place for place, (_, node) in enumerate(layers) if isinstance(node, Conv))
            layers = layers[: last + 1]
        pool: Parts = () if self.pool == "none" else (("pool", Pool(kind=self.pool, stride=2, kernel=3)),)
        return (*layers, *pool)

    def describe(self) -> str:
        """It in a few words."""
        kernel = f"{self.kernel}x{self.kernel}"
        stride = f" /{self.stride}" if self.stride > 1 else ""
        padding = "" if self.padding is None else f" padding {self.padding}"
        pool = "" if self.pool == "none" else f", {self.pool} pooling /2"
        if self.kind == "patchify":
            return f"patches {kernel} {self.width}{pool}"
        name = "3 x conv" if self.kind == "deep" else "conv"
        bare = "" if self.active else " alone"
        return f"{name}{kernel} {self.width}{padding}{stride}{bare}{pool}"


class PooledHead(Frozen):
    """Global pooling, then linear layers: takes images of any size (Lin et al. 2014, section 3.2).

    Args:
        kind: mean, maximum, or both joined, which doubles the features.
        hidden: widths of linear layers with activation before the last one.
        dropout: before each linear layer.
        norm: whether the network's normalisation stands between pooling and the linear layers (Liu et al. 2022).
    """

    kind: Literal["average", "max", "both"] = "average"
    hidden: tuple[Width, ...] = ()
    dropout: Rate = 0.0
    norm: bool = False

    def parts(self, style: Style, outputs: int) -> Parts:
        """Its layers by name."""
        if self.kind == "both":
            cells = (("average", GridPool()), ("max", GridPool(kind="max")))
            pool: Parts = (("pool", Concat(parts=cells)),)
        else:
            pool = (("pool", GridPool(kind=self.kind)),)
        norm = units.norm(style) if self.norm else ()
        return (*pool, *norm, ("flatten", Flatten()), *_linears(self.hidden, self.dropout, style, outputs))

    def describe(self) -> tuple[str, ...]:
        """Its layers in a few words."""
        return ("average and max" if self.kind == "both" else self.kind, *_told(self.hidden, self.dropout))


class FlattenHead(Frozen):
    """Pooling to a grid, then linear layers that know where in the image a feature was.

    Args:
        grid: cells along each side; the first linear layer reads `grid` squared positions of every channel.
        hidden: widths of linear layers with activation before the last one.
        dropout: before each linear layer.
    """

    kind: Literal["flatten"] = "flatten"
    grid: Annotated[int, Field(ge=1, le=64)] = 4
    hidden: tuple[Width, ...] = ()
    dropout: Rate = 0.0

    def parts(self, style: Style, outputs: int) -> Parts:
        """Its layers by name."""
        pool: Parts = (("pool", GridPool(side=self.grid)), ("flatten", Flatten(side=self.grid)))
        return (*pool, *_linears(self.hidden, self.dropout, style, outputs))

    def describe(self) -> tuple[str, ...]:
        """Its layers in a few words."""
        return (f"flatten {self.grid}x{self.grid}", *_told(self.hidden, self.dropout))


class ClassMapsHead(Frozen):
    """No linear layer at all: a 1x1 convolution scores the classes (Lin et al. 2014, section 3.2; Long et al. 2015).

    Args:
        classifier: `before` the average, so that there is a map of each class, or `after` it, which is the same
            function at less cost, but leaves no maps.
        dropout: before the convolution.
    """

    kind: Literal["class-maps"] = "class-maps"
    classifier: Literal["before", "after"] = "before"
    dropout: Rate = 0.0

    def parts(self, style: Style, outputs: int) -> Parts:
        """Its layers, named by number, by which `networks.head` knows a head of maps and can replace it."""
        classify, average = ClassMaps(width=outputs), GridPool()
        order = (classify, average) if self.classifier == "before" else (average, classify)
        drop = (Dropout(rate=self.dropout),) if self.dropout else ()
        return tuple((str(number), node) for number, node in enumerate((*drop, *order, Flatten())))

    def describe(self) -> tuple[str, ...]:
        """Its layers in a few words."""
        drop = (f"dropout {self.dropout:g}",) if self.dropout else ()
        order = ("class maps", "average") if self.classifier == "before" else ("average", "1x1 classifier")
        return (*drop, *order)


Head: TypeAlias = Annotated[PooledHead | FlattenHead | ClassMapsHead, Field(discriminator="kind")]


def _linears(hidden: tuple[int, ...], dropout: float, style: Style, outputs: int) -> Parts:
    drop: Parts = (("dropout", Dropout(rate=dropout)),) if dropout else ()
    parts: Parts = ()
    for number, width in enumerate(hidden):
        marked: Parts = tuple((f"{name}{number}", node) for name, node in drop)
        active: Parts = (
            () if style.activation == "none" else ((f"activation{number}", Activation(kind=style.activation)),)
        )
        parts = (*parts, *marked, (f"linear{number}", Linear(width=width, hidden=True)), *active)
    return (*parts, *drop, ("linear", Linear(width=outputs)))


def _told(hidden: tuple[int, ...], dropout: float) -> tuple[str, ...]:
    drop = (f"dropout {dropout:g}",) if dropout else ()
    return (*(f"linear {width}" for width in hidden), *drop, "linear")
