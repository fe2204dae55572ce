"""An exponential moving average of the weights: what is validated, and what the fit ends with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cyclewise._validation import fraction
from cyclewise.training.callbacks import Callback

if TYPE_CHECKING:
    from cyclewise.training.learner import Learner


class WeightAverage(Callback):
    """Average the weights over the steps; validate with the average, and leave it in the model after the fit.

    After each step ``average <- decay * average + (1 - decay) * weights``, with a decay that begins at
    ``(1 + step) / (10 + step)`` so that the first weights are soon forgotten. Buffers (batch norm's statistics) are
    those of the last step.

    Args:
        decay: weight of the past, in [0, 1); 0.999 averages over about a thousand steps.

    Source: Polyak and Juditsky (1992); the form and its warm-up are those of arXiv:1512.00567, section 8.

    Example:
        >>> import cyclewise as cw
        >>> data = cw.Data([(torch.ones(4, 1), torch.ones(4).long())])
        >>> learn = cw.Learner(nn.Linear(1, 2), data, progress=False)
        >>> history = learn.fit(cw.Constant(lr=0.1, total_steps=50), callbacks=[cw.WeightAverage(0.9)])
        >>> history.num_steps
        50
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = fraction("decay", decay)
        self._average: list[Tensor] = []
        self._own: list[Tensor] = []
        self._num_steps = 0

    def on_fit_start(self, learner: "Learner", total_steps: int) -> None:
        """Begin with the present weights."""
        del total_steps
        self._num_steps, self._own = 0, []
        self._average = [_wide(parameter).clone() for parameter in _averaged(learner.model)]

    def on_step_end(self, learner: "Learner", step: int, loss: Tensor) -> None:
        """Take the weights of the step in."""
        del loss
        self._num_steps = step + 1
        decay = min(self.decay, (1 + self._num_steps) / (10 + self._num_steps))
        weights = [_wide(parameter) for parameter in _averaged(learner.model)]
        torch._foreach_lerp_(self._average, weights, 1.0 - decay)

    def on_validation_start(self, learner: "Learner") -> None:
        """Put the average into the model."""
        self._own = [parameter.detach().clone() for parameter in _averaged(learner.model)]
        _write(learner.model, self._average)

    def on_validation_end(self, learner: "Learner") -> None:
        """Put the weights back."""
        _write(learner.model, self._own)
        self._own = []

    def on_fit_end(self, learner: "Learner") -> None:
        """Leave the average in the model, unless the fit was cut off and is to go on."""
        if learner.run is None:
            _write(learner.model, self._average)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": list(self._average), "num_steps": self._num_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved average."""
        self._num_steps = state["num_steps"]
        for average, saved in zip(self._average, state["average"], strict=True):
            average.copy_(saved)


def _averaged(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]


def _wide(parameter: Tensor) -> Tensor:
    # In 16 bits, what a step adds to the average would be rounded away.
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))


def _write(model: nn.Module, values: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(_averaged(model), values)
