"""Rules about training and use: what differs between them, what mixes images of one batch, what the data asks for."""

from __future__ import annotations

from torch import nn

from convsmith.networks.lint.rule import IMAGES, Evidence, Example, Rule, Seen, named, plural
from convsmith.networks.lint.trail import Trail
from convsmith.networks.recording.graph import Operation

RANDOM = {
    "bernoulli", "native_dropout", "rand", "randn", "rand_like", "randn_like", "randint", "uniform", "normal",
    "multinomial", "randperm",
}  # fmt: skip
FEW, TOO_FEW = 8, 2
SHAPING = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
SOFTMAXES = {"_softmax", "_log_softmax", "_safe_softmax"}
REDUCTIONS = {"mean", "sum", "var", "std", "var_mean", "std_mean", "amax", "amin"}


def _batch_statistics(evidence: Evidence) -> Seen | None:
    trail, places = evidence.inference, []
    for operation in trail.graph.operations:
        own = operation.arguments.get("training", operation.arguments.get("train", False))
        if own and trail.over_images(operation):
            places.append(operation.module)
    if not places:
        return None
    return Seen(
        f"To predict, {plural(len(places), 'batch norm')} would use the statistics of the batch: {named(places)}.",
        tuple(places),
    )


def _random_at_inference(evidence: Evidence) -> Seen | None:
    trail = evidence.inference
    drawn = [operation for operation in trail.graph.operations if operation.name in RANDOM]
    places = [operation.module for operation in drawn if operation.index in trail.useful]
    if not places:
        return None
    return Seen(f"Predictions depend on chance: {named(places)} draws random numbers in inference mode.", tuple(places))


def _mixed_batch(evidence: Evidence) -> Seen | None:
    for trail, times in ((evidence.inference, ""), (evidence.larger, " of twice the size")):
        logits = None if trail is None else trail.logits(evidence.classes)
        if trail is None or logits is None or IMAGES in logits.shape:
            continue
        needed = trail.behind((logits.index,))
        if any(_moves_images(trail, operation) for operation in trail.graph.operations if operation.index in needed):
            rows = logits.shape[0]
            return Seen(
                f"{IMAGES} images{times} give {plural(rows, 'row')} of outputs: a constant in a `view` or "
                "`reshape` has moved parts of images into the batch.",
                (), {"images": IMAGES, "rows": rows},
            )  # fmt: skip
    return _across_images(evidence)


def _moves_images(trail: Trail, operation: Operation) -> bool:
    """Whether an operation reshapes a batch into something that has no dimension for the images."""
    data = trail.data(operation) if operation.name in SHAPING else None
    values = trail.graph.values
    return data is not None and IMAGES in values[data].shape and IMAGES not in values[operation.outputs[0]].shape


def _across_images(evidence: Evidence) -> Seen | None:
    """Logits for which numbers of several images were set against each other, or put together."""
    trail = evidence.inference
    logits = trail.logits(evidence.classes)
    needed = frozenset[int]() if logits is None else trail.behind((logits.index,))
    for operation in trail.graph.operations:
        data = trail.data(operation) if operation.name in SOFTMAXES | REDUCTIONS else None
        if data is None or operation.index not in needed:
            continue
        shape, dims = trail.graph.values[data].shape, operation.arguments.get("dim")
        if len(shape) < 2 or shape[0] != IMAGES:
            continue
        if operation.name in SOFTMAXES:
            what, over = "softmax", operation.arguments["dim"] % len(shape) == 0
        else:  # of a size that no other dimension could have been made of
            what = operation.name.removeprefix("a").replace("_", " and ")
            over = not dims or any(dim % len(shape) == 0 for dim in (dims if isinstance(dims, tuple) else (dims,)))
            over = over and all(size % IMAGES for size in shape[1:])
        if over:
            says = f"The {what} of {operation.module or 'the network'} runs over the images of a batch (dim 0)."
            return Seen(says, (operation.module,))
    return None


def _tiny_batch(evidence: Evidence) -> Seen | None:
    batch = evidence.batch
    if batch is None or batch >= FEW:
        return None
    trail = evidence.inference
    places = [operation.module for operation in trail.graph.operations if trail.over_images(operation)]
    if not places:
        return None
    return Seen(
        f"With {plural(batch, 'image')} a step, what {plural(len(places), 'batch norm')} normalise by is mostly noise.",
        tuple(places[:1]), {"batch": batch, "norms": len(places)}, "error" if batch <= TOO_FEW else "warning",
    )  # fmt: skip


def _frozen_flag(evidence: Evidence) -> Seen | None:
    places = [path for path, module in evidence.model.named_modules() if "requires_grad" in vars(module)]
    if not places:
        return None
    return Seen(f"`requires_grad` was set on modules, where it does nothing: {named(places)}.", tuple(places))


def _too_few_outputs(evidence: Evidence) -> Seen | None:
    logits = evidence.inference.logits(evidence.classes)
    outputs = logits.shape[1] if logits is not None and len(logits.shape) == 2 else None
    if evidence.classes is None or outputs is None or outputs == evidence.classes:
        return None
    says = f"The network gives {plural(outputs, 'logit')} for {plural(evidence.classes, 'class', 'classes')}."
    return Seen(says, (), {"outputs": outputs, "classes": evidence.classes},
                "error" if outputs < evidence.classes else "hint")  # fmt: skip


def _without_statistics() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16, track_running_stats=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def _with_statistics() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class _AlwaysDropped(nn.Module):
    """`F.dropout` drops in inference mode too, unless it is told the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, images):
        features = self.features(images).relu().mean((2, 3))
        return self.head(nn.functional.dropout(features, 0.5))


class _Dropped(_AlwaysDropped):
    def forward(self, images):
        features = self.features(images).relu().mean((2, 3))
        return self.head(nn.functional.dropout(features, 0.5, self.training))


class _ConstantView(nn.Module):
    """-1 stands for the batch only while images have the size that the constant was counted for."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.Linear(8 * 64, 10)

    def forward(self, images):
        return self.head(self.features(images).relu().view(-1, 8 * 64))


class _Flattened(_ConstantView):
    def forward(self, images):
        return self.head(self.features(images).relu().flatten(1))


def _flagged() -> nn.Module:
    model = _with_statistics()
    model[0].requires_grad = False  # type: ignore[index]
    return model


def _truly_frozen() -> nn.Module:
    model = _with_statistics()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


_NORMED = "conv 16 k3 p1 nobias | bn | relu | gap | flatten | linear 10"

MODE_RULES = (
    Rule(
        "batch-statistics-at-inference", "error", "Predictions depend on the rest of the batch", _batch_statistics,
        why="A batch norm without running statistics normalises by whatever images happen to come together: the same "
        "image is named otherwise in other company, and a single one is normalised by itself.",
        mend="Leave `track_running_stats` on, or use group norm.",
        source="Ioffe & Szegedy 2015, “Batch normalization”, section 3.1, algorithm 2",
        broken=Example(make=_without_statistics), healthy=Example(make=_with_statistics),
    ),
    Rule(
        "random-at-inference", "error", "Predictions depend on chance", _random_at_inference,
        why="The same image gets another answer each time, and none of them is what training was after.",
        mend="Use the module (`nn.Dropout`), or pass `self.training`: `F.dropout(x, p, self.training)`.",
        source="Srivastava et al. 2014, “Dropout”, section 10: at test time nothing is dropped",
        broken=Example(make=_AlwaysDropped), healthy=Example(make=_Dropped),
    ),
    Rule(
        "mixed-batch", "error", "Parts of images are moved into the batch, or images mixed", _mixed_batch,
        why="With images of another size, a constant in `view(-1, ...)` makes more rows than there are images, or "
        "joins two of them; losses and figures are then of pieces. A softmax over the batch makes images compete, and "
        "with a mean over it, what is said of an image depends on the others.",
        mend="Keep the batch: `flatten(1)`, `softmax(dim=1)`, and means over dimensions from 1 on.",
        source="the network's own graph, recorded at two sizes",
        broken=Example(make=_ConstantView), healthy=Example(make=_Flattened),
    ),
    Rule(
        "tiny-batch", "warning", "Batch norm over few images", _tiny_batch,
        why="Mean and variance of a handful of images are mostly noise, and running statistics fit none of them: below "
        "eight images accuracy falls, with two the network often fails in use.",
        mend="Larger batches, group norm, or frozen norms (`--set transfer.frozen_norms=true`).",
        source="Wu & He 2018, “Group normalization”, figure 1",
        broken=Example(_NORMED, batch=4), healthy=Example(_NORMED, batch=32),
    ),
    Rule(
        "frozen-flag-on-module", "warning", "A frozen flag that does nothing", _frozen_flag,
        why="`module.requires_grad = False` makes an attribute that nobody reads; the parameters are trained on.",
        mend="Write `module.requires_grad_(False)`.",
        source="PyTorch, torch.nn.Module.requires_grad_",
        broken=Example(make=_flagged), healthy=Example(make=_truly_frozen),
    ),
    Rule(
        "outputs-and-classes", "error", "Not as many outputs as classes", _too_few_outputs,
        why="With fewer outputs than classes the loss fails or some can never be named; with more, some of the "
        "probability goes to classes that do not exist. Networks by name get a new head when they are trained.",
        mend="Make the last layer as wide as there are classes.",
        source="one logit a class",
        broken=Example(_NORMED, classes=12), healthy=Example(_NORMED, classes=10),
    ),
)  # fmt: skip
