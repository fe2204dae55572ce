"""Every exception that cyclewise raises of its own accord, under one base to catch.

Each class also inherits the built-in that a caller would expect, so ``except ValueError`` keeps working::

    CyclewiseError
    ├── ArgumentError (ValueError)         an argument has a value that cannot work
    │   ├── PolicyError                    … of a policy, or a policy that does not fit its optimizer or its saved state
    │   └── SuggestionError                there is no learning rate to give; the message says why
    ├── ArgumentTypeError (TypeError)      an argument is of a kind that cannot work
    ├── DivergedError (ArithmeticError)    the training loss stopped being finite
    ├── WorkerError (RuntimeError)         a worker process died or could not be started
    ├── CheckpointError (RuntimeError)     a checkpoint is damaged, foreign or cannot be written
    └── MissingExtraError (ImportError)    an optional dependency is missing; the message says how to install it

Exceptions of the user's own model, loss, step or loader pass through unchanged.
"""

from pathlib import Path


class CyclewiseError(Exception):
    """Base of all exceptions raised by cyclewise."""


class ArgumentError(CyclewiseError, ValueError):
    """An argument has a value that cannot work; the message names it, the value it got and the way out."""


class ArgumentTypeError(CyclewiseError, TypeError):
    """An argument is of a kind that cannot work; the message names it, the type it got and the way out."""


class PolicyError(ArgumentError):
    """A policy's argument is impossible, or a policy does not fit its optimizer or its saved state."""


class SuggestionError(ArgumentError):
    """A range test has no such rate to give; the message carries the reason and the remedy."""


class DivergedError(CyclewiseError, ArithmeticError):
    """The training loss stopped being finite.

    Attributes:
        step: the step (optimizer update, counted from 0) whose loss was not finite.
        lr: the learning rate of that step, of the fastest group.
        checkpoint: the folder of the last checkpoint before it; None without one.
    """

    def __init__(
        self, message: str, *, step: int | None = None, lr: float | None = None, checkpoint: Path | None = None
    ) -> None:
        super().__init__(message)
        self.step = step
        self.lr = lr
        self.checkpoint = checkpoint

    def add(self, text: str) -> None:
        """Say something more."""
        self.args = (f"{self}; {text}",)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_diverged, (str(self), self.step, self.lr, self.checkpoint)


class CheckpointError(CyclewiseError, RuntimeError):
    """A checkpoint is damaged, foreign, or cannot be written."""


class WorkerError(CyclewiseError, RuntimeError):
    """A worker process died or could not be started; the message says how, and the way out."""


class MissingExtraError(CyclewiseError, ImportError):
    """An optional dependency is not installed.

    >>> print(MissingExtraError.for_extra("demo", "scikit-learn"))
    this needs scikit-learn, which is not installed; run: pip install "cyclewise[demo]"
    """

    @classmethod
    def for_extra(cls, extra: str, package: str) -> "MissingExtraError":
        """Return the error for one extra; its message holds the exact command to install it."""
        return cls(f'this needs {package}, which is not installed; run: pip install "cyclewise[{extra}]"')


def _rebuild_diverged(message: str, step: int | None, lr: float | None, checkpoint: Path | None) -> DivergedError:
    return DivergedError(message, step=step, lr=lr, checkpoint=checkpoint)
