"""Scoring a batch without updating: in eval mode, unless the loss can't do with what the model answers there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclewise.stepping import evaluating

_Scores = TypeVar("_Scores")


class Scoring:
    """Blocks in which `model` is scored.

    Some models answer in eval mode with something else than what the training loss takes (without their auxiliary
    heads; with detections in place of losses). Where that shows at the first attempt, they are scored as they train.

    Args:
        model: what is scored.

    Example:
        >>> model = nn.Dropout()
        >>> scoring = Scoring(model)
        >>> scoring.attempt(lambda: model.training)
        False
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._is_training = False

    def attempt(self, score: Callable[[], _Scores]) -> _Scores:
        """Return what `score` returns; where it raises in eval mode but not in train mode, the latter from now on."""
        try:
            with self.block():
                return score()
        except Exception:
            # An error that does not come again is no matter of the mode.
            if self._is_training or self._works(score):
                raise
            self._is_training = True
            if not self._works(score):
                self._is_training = False
                raise
        with self.block():
            return score()

    def _works(self, score: Callable[[], object]) -> bool:
        try:
            with self.block():
                score()
        except Exception:
            return False
        return True

    @contextmanager
    def block(self) -> Iterator[None]:
        """Eval mode without gradients, but batch norm in train mode goes on normalising by the batch.

        Its running statistics lag tens of steps behind, and would be what a short run is judged by.
        """
        if self._is_training:
            with torch.no_grad():
                yield
            return
        norms = [module for module in self._model.modules() if isinstance(module, _BatchNorm) and module.training]
        with evaluating(self._model):
            for norm in norms:
                norm.training = True
            yield
