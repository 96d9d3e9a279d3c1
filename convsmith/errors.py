"""Every error Convsmith raises on purpose, and the exit code each one ends a command with.

    ConvsmithError                1   the work failed
    ├── UsageError                2   the call itself is wrong: an option, a name, a missing path
    ├── DataError                 3   the images, labels or splits cannot be used
    ├── RunError                  4   a run folder cannot be read, is locked, or does not match
    │   └── CheckpointError       4   a checkpoint is damaged or was made for something else
    ├── ResourceError             5   memory or disk ran out
    └── RequirementError          6   a demanded figure was not reached

    Interrupted             130/143   a signal ended the work after it was saved; a KeyboardInterrupt, and no error

Each says what happened, what was expected, and the mend. The command line prints message and mend; `--debug` adds the
traceback.
"""


class ConvsmithError(Exception):
    """The root of all errors raised on purpose.

    Args:
        message: what happened and what was expected, with the values, in one sentence or two.
        mend: what to do about it, ready to be followed; empty where the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message} {self.mend}".strip()


class UsageError(ConvsmithError):
    """The call itself is wrong: an unknown name, an impossible option, a path that is not there."""

    exit_code = 2


class DataError(ConvsmithError):
    """The images, labels or splits cannot be used as they are."""

    exit_code = 3


class RunError(ConvsmithError):
    """A run folder cannot be read, is in use by another process, or does not match what it is used with."""

    exit_code = 4


class CheckpointError(RunError):
    """A checkpoint is damaged, or was made for another network or other data."""


class ResourceError(ConvsmithError):
    """Memory or disk ran out."""

    exit_code = 5


class RequirementError(ConvsmithError):
    """A figure the user demanded was not reached."""

    exit_code = 6


class Interrupted(KeyboardInterrupt):
    """A signal asked the work to end; everything that could be saved has been.

    It derives from `KeyboardInterrupt`, so that nobody's `except Exception` takes it for a failure of their own.

    Args:
        message, mend: as in `ConvsmithError`.
        exit_code: 130 for an interrupt from the keyboard (SIGINT), 143 for SIGTERM.
    """

    def __init__(self, message: str, *, mend: str = "", exit_code: int = 130) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.exit_code = exit_code
