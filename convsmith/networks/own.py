"""The user's own network: `FILE.py:NAME`, with options, hashed, and checked before anything is trained with it.

Its code runs because the user typed its path. A recipe never names code, so what is recorded is the file's SHA-256, and
whoever loads it again says where the file is and has the hash checked.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from convsmith.errors import UsageError
from convsmith.networks.counting.analysis import undisturbed, zeros
from convsmith.networks.lines.mismatch import size_error
from convsmith.registry import suggestion

EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def load_own(
    path: str | Path,
    name: str,
    options: Mapping[str, Any],
    *,
    in_channels: int,
    outputs: int,
    expected_sha256: str | None = None,
) -> nn.Module:
    """Build the network that the class or function `name` of a Python file makes.

    `in_channels` and `outputs` are passed where its signature names them; `options` win over both. Imports of modules
    beside the file work, but only the file itself is hashed. Its module stays in `sys.modules` under a name made of its
    hash (pickling and dataclasses look there). Modules beside it do not stay, so that the `layers.py` of two networks
    never meet: they must be imported when the file is, or when the network is built, and not later.

    Args:
        path: the Python file.
        name: a callable in it that returns an `nn.Module`.
        options: its further arguments.
        in_channels: channels of the images.
        outputs: logits to give.
        expected_sha256: what the file's hash must be, as `code_sha256` gives it; `None` accepts any.

    Raises:
        UsageError: no such file or name, another hash, an error in the user's code (their line is shown), an argument
            unknown or missing, or a result that is not an `nn.Module`.
    """
    path = Path(path).resolve()
    source = _read(path)
    digest = hashlib.sha256(source).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256:
        raise UsageError(
            f"{path.name} has changed: its SHA-256 is {digest[:12]}..., but {expected_sha256[:12]}... was expected.",
            mend="Give the file that the run was made with; the run's folder keeps a copy.",
        )
    with _beside(path.parent):
        module = _execute(path, source, digest)
        make = _callable(module, path, name)
        arguments = _arguments(make, name, options, {"in_channels": in_channels, "outputs": outputs})
        with _blaming(path, f"building {name}"):
            model = make(**arguments)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{name} in {path.name} returned {type(model).__name__}, not a torch.nn.Module.",
            mend=f"End {name} with `return model`, or name a class that derives from torch.nn.Module.",
        )
    return model


def code_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file of code, in hexadecimal.

    Raises:
        UsageError: there is no such file.
    """
    return hashlib.sha256(_read(Path(path))).hexdigest()


def parse_arguments(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs whose values are YAML scalars or lists: `width=32`, `rate=1e-3`, `wide=true`.

    Raises:
        UsageError: no `=`, a key that is no Python name or comes twice, or a value that cannot be read.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--arg {pair!r} is not NAME=VALUE.", mend="Write it as in `--arg width=32`.")
        if key in values:
            raise UsageError(f"--arg {key} is given twice.", mend="Keep one of them.")
        values[key] = _scalar(key, text)
    return values


def check_output(model: nn.Module, *, channels: int, size: int, outputs: int) -> None:
    """Refuse, before training, a network that does not turn images into one row of finite logits each.

    Two images of zeros go through it in inference mode; the network and all random states stay as they were.

    Args:
        model: the network.
        channels, size: of the images, `[2, channels, size, size]`.
        outputs: logits expected for each image.

    Raises:
        UsageError: nothing to train, an error inside the network, another shape, or values that are not finite.
    """
    name = type(model).__name__
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(
            f"{name} has no parameter that can be trained.",
            mend="Assign its layers to attributes (`self.conv = nn.Conv2d(...)`), and leave some `requires_grad` on.",
        )
    shape = (2, channels, size, size)
    try:
        with undisturbed(model, training=False), torch.no_grad():
            logits = model(zeros(model, shape))
    except Exception as error:
        raise _failure(model, shape, error) from error
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"{name} returned {type(logits).__name__}, but a tensor of shape [2, {outputs}] was expected.",
            mend="Return the logits alone from `forward`.",
        )
    if tuple(logits.shape) != (2, outputs):
        raise UsageError(
            f"{name} gave the shape {list(logits.shape)} for 2 images, but [2, {outputs}] was expected.",
            mend=_shape_mend(tuple(logits.shape), outputs),
        )
    if not bool(torch.isfinite(logits).all()):
        raise UsageError(
            f"{name} gave logits that are not finite (NaN or infinity) for images of zeros.",
            mend="Look for a division by zero, the logarithm of zero, or weights that were never initialised.",
        )


def _failure(model: nn.Module, shape: tuple[int, ...], error: Exception) -> UsageError:
    """What a network's own error means; the sum behind it, and what would fit, where sizes do not."""
    _, channels, size, _ = shape
    told = f"{type(model).__name__} failed on images of shape {list(shape)}"
    mend = f"Make it accept {channels}-channel images of {size}x{size} px, or change the size (`image.size`)."
    try:
        found = size_error(model, shape[1:])
    except Exception:  # what fails on real images may fail on imagined ones in another way, which is of no interest
        found = None
    if found is None:
        return UsageError(f"{told}: {type(error).__name__}: {error}{_own_line(error)}", mend=mend)
    place = f" in {found.place}" if found.place else ""
    return UsageError(f"{told}{place}: {found.says}.{_own_line(error)}", mend=found.mend or mend)


def _shape_mend(shape: tuple[int, ...], outputs: int) -> str:
    if len(shape) == 2 and shape[0] == 2:
        return f"Let its last layer give {outputs} values: take the argument `outputs`, which Convsmith passes."
    if len(shape) == 2 and shape[1] == outputs:
        return "It mixes the images of a batch: flatten with `x.flatten(1)`, which keeps the first dimension."
    if len(shape) == 4:
        return "It still gives maps: end it with `x.mean(dim=(2, 3))` or a pooling, and a linear layer."
    return "Return one row of logits for each image."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        near = [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = suggestion(path.name, near) if near else "Give the path of a Python file, as in `--model net.py:Net`."
        raise UsageError(f"The file {path} cannot be read: {error.strerror}.", mend=hint) from None


def _execute(path: Path, source: bytes, digest: str) -> ModuleType:
    module = ModuleType(f"convsmith_own_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        with _blaming(path, "importing it"):
            exec(compile(source, str(path), "exec"), module.__dict__)  # the user's own code, whose path they typed
    except UsageError:
        sys.modules.pop(module.__name__, None)
        raise
    return module


def _callable(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    try:
        found = getattr(module, name)
    except AttributeError:
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path.name} has nothing named {name!r}.", mend=suggestion(name, own)) from None
    if isinstance(found, nn.Module) or not callable(found):
        raise UsageError(
            f"{name} in {path.name} is {type(found).__name__} already made, not a class or a function.",
            mend="Name the class or a function that returns the network, so that each seed gets fresh weights.",
        )
    return found


def _arguments(
    make: Callable[..., Any], name: str, options: Mapping[str, Any], known: Mapping[str, int]
) -> dict[str, Any]:
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # some callables written in C do not tell
        return {**known, **options}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for option in options:
        if option not in named and not open_ended:
            raise UsageError(f"{name} takes no argument {option!r}.", mend=suggestion(option, named))
    arguments = {**{key: value for key, value in known.items() if key in named}, **options}
    missing = [key for key in named if parameters[key].default is inspect.Parameter.empty and key not in arguments]
    if missing:
        raise UsageError(
            f"{name} needs {', '.join(missing)}, which was not given.",
            mend="Add " + " ".join(f"--arg {key}=VALUE" for key in missing) + ", or give it a default.",
        )
    return arguments


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let imports find modules of `folder` inside; afterwards the path, and those modules, are gone again."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            top = name.partition(".")[0]
            file = getattr(sys.modules[name], "__file__", None)
            if file and (Path(file) == folder / f"{top}.py" or (folder / top) in Path(file).parents):
                del sys.modules[name]


@contextmanager
def _blaming(path: Path, doing: str) -> Iterator[None]:
    """Turn an error of the user's code into a `UsageError` that shows the line of theirs that raised it."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line = f"\n  {path.name}:{error.lineno}: {(error.text or '').strip()}"
            raise UsageError(
                f"{path.name} is not valid Python: {error.msg}.{line}", mend="Correct that line."
            ) from error
        mend = "Correct that line; `--debug` shows the whole traceback."
        if isinstance(error, ModuleNotFoundError):
            mend = (
                f"Install {error.name}, or put {error.name}.py beside {path.name}: modules of its own folder are found."
            )
        raise UsageError(
            f"{path.name} failed while {doing}: {type(error).__name__}: {error}{_own_line(error, path)}", mend=mend
        ) from error


def _own_line(error: BaseException, path: Path | None = None) -> str:
    """The deepest line of the traceback in the user's file, ready to be appended to a message."""
    frames = traceback.extract_tb(error.__traceback__)
    if path is None:
        outside = [frame for frame in frames if "torch" not in Path(frame.filename).parts and frame.line]
        own = outside[-1:] if outside and outside[-1].filename != __file__ else []
    else:
        own = [frame for frame in frames if frame.filename == str(path)][-1:]
    return "".join(f"\n  {Path(frame.filename).name}:{frame.lineno}: {frame.line}" for frame in own)


def _scalar(key: str, text: str) -> Any:
    if EXPONENT.fullmatch(text):  # YAML 1.1 reads 1e-3 as text
        return float(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(
            f"The value of --arg {key}={text} cannot be read.", mend="Quote text: `key='\"text\"'`."
        ) from None
    if isinstance(value, Mapping):
        raise UsageError(f"The value of --arg {key}={text} is a mapping.", mend="Give one value, or a list `[1, 2]`.")
    return value
