"""Cliffs: the loss and its gradient along a step, against what the gradient and curvature at its start promise.

Source: Goodfellow et al., *Deep Learning*, section 8.2.4: repeated multiplication makes walls so steep that a step down
the gradient is thrown far away; Pascanu et al., arXiv:1211.5063, section 2.3. Along a move m from the present point,
the quadratic model with gradient g and Hessian H says, at the share f of it::

    change of the loss = f g'm + f^2 / 2 m'Hm          gradient = g + f H m

For a step down the gradient, m = -g and f is the learning rate e, this is the Taylor table -e g'g + e^2 / 2 g'Hg. On a
quadratic the gradient grows along a step too, where the rate is too high: that is promised. A *cliff* is what is not
promised: the factor by which the gradient is longer than both at the start and in the model, at its most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from cyclewise._validation import whole
from cyclewise.errors import ArgumentError
from cyclewise.landscape.objective import Objective

# Shares of the step that helps most by the quadratic model, which ends at 2: there it promises the loss of the start.
SHARES = (1 / 64, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 1.5, 2.0)
# Without curvature along the gradient, steps are shares of this part of the parameters' length.
_LENGTH_SHARE = 0.1
_DEVIATION = 1.4826  # from a median absolute deviation to the standard deviation of a normal distribution


@dataclass(frozen=True)
class Descent:
    """The loss and its gradient along a move, predicted by the quadratic model and measured.

    Attributes:
        factors: shares of the move, rising: learning rates where the move is the negative gradient.
        predicted: change of the loss, by the quadratic model.
        actual: change of the loss; not finite where it overflows.
        predicted_norms: of the gradient, by the quadratic model.
        gradient_norms: of the gradient; not finite where it overflows.
        gradient_norm: of the gradient at the start.
        resolution: changes of the loss below this are rounding.
    """

    factors: tuple[float, ...]
    predicted: tuple[float, ...]
    actual: tuple[float, ...]
    predicted_norms: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    gradient_norm: float
    resolution: float

    @property
    def cliff(self) -> float:
        """The factor by which the gradient is longer than promised, at most; 1 on a quadratic, infinite at overflow."""
        return max(self._surprises(), default=1.0)

    @property
    def cliff_factor(self) -> float:
        """The share of the move at which the gradient is longest against the promise."""
        surprises = self._surprises()
        return self.factors[surprises.index(max(surprises))]

    @property
    def rise(self) -> float:
        """The most by which the loss lies above the promise, in units of the best promised fall; infinite at overflow.

        Infinite also where no fall is promised.
        """
        fall = max(-min(self.predicted), self.resolution)
        above = [
            (actual - predicted) / fall if math.isfinite(actual) else math.inf
            for actual, predicted in zip(self.actual, self.predicted, strict=True)
        ]
        return max(0.0, *above) if fall > 0.0 else math.inf

    def _surprises(self) -> list[float]:
        result = []
        for norm, promised in zip(self.gradient_norms, self.predicted_norms, strict=True):
            expected = max(promised, self.gradient_norm)
            result.append(max(1.0, norm / expected) if math.isfinite(norm) and expected > 0.0 else math.inf)
        return result


@dataclass(frozen=True)
class Jump:
    """A sudden rise in a history of losses.

    Attributes:
        step: where it begins.
        before: level of the losses before it.
        after: level of the three losses from there on.
        spreads: the rise over the spread of the losses before it.
    """

    step: int
    before: float
    after: float
    spreads: float


def descend(
    objective: Objective,
    move: Tensor,
    factors: Sequence[float],
    *,
    gradient: Tensor | None = None,
    product: Tensor | None = None,
    loss: float | None = None,
) -> Descent:
    """Measure loss and gradient along a move; costs 4/3 gradient evaluations for each factor.

    What of the start is not given costs 1 more (`gradient`), a Hessian product (`product`), a third (`loss`).

    Args:
        objective: the mean loss over the batches.
        move: m, a change of the parameters, [P]: the negative gradient, or an optimizer's step.
        factors: shares of the move, above 0.
        gradient: g at the start, [P].
        product: H m, [P].
        loss: at the start.

    Raises:
        ArgumentError: there is no factor, or one is not above 0.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> objective = Objective(model, torch.nn.functional.mse_loss, [(torch.ones(1, 1), torch.zeros(1, 1))])
        >>> line = descend(objective, -objective.gradient(), [0.25, 0.5, 1.0])  # w^2, from 1
        >>> line.predicted, line.actual, line.gradient_norms, line.cliff
        ((-0.75, -1.0, 0.0), (-0.75, -1.0, 0.0), (1.0, 0.0, 2.0), 1.0)
    """
    if not factors or not all(factor > 0.0 for factor in factors):
        raise ArgumentError(f"factors must be numbers above 0, got {list(factors)!r}; pass shares of the move")
    gradient = objective.gradient() if gradient is None else gradient
    product = objective.product(move) if product is None else product
    loss = objective.loss() if loss is None else loss
    slope = float(gradient.double() @ move.double())
    curvature = float(product.double() @ move.double())
    actual, norms = [], []
    for factor in sorted(factors):
        with objective.moved(move, factor):
            actual.append(objective.loss() - loss)
            norms.append(float(objective.gradient().double().norm()))
    return Descent(
        factors=tuple(sorted(factors)),
        predicted=tuple(factor * slope + 0.5 * factor**2 * curvature for factor in sorted(factors)),
        actual=tuple(actual),
        predicted_norms=tuple(
            float(torch.add(gradient.double(), product.double(), alpha=factor).norm()) for factor in sorted(factors)
        ),
        gradient_norms=tuple(norms),
        gradient_norm=float(gradient.double().norm()),
        resolution=8.0 * torch.finfo(objective.dtype).eps * abs(loss),
    )


def rates_around(
    gradient_norm: float, curvature: float, parameter_norm: float, shares: Sequence[float] = SHARES
) -> tuple[float, ...]:
    """Return the learning rates to try down the gradient: shares of the one that the quadratic model likes best.

    Args:
        gradient_norm: length of g.
        curvature: g'Hg; where it is not above 0 the rates are such that the steps are shares of a tenth of the
            parameters' length.
        parameter_norm: length of the parameters.
        shares: of the best rate, g'g / g'Hg.

    Example:
        >>> rates_around(2.0, 16.0, 1.0, [0.5, 2.0])
        (0.125, 0.5)
    """
    longest = (_LENGTH_SHARE * parameter_norm or 1.0) / gradient_norm if gradient_norm > 0.0 else 1.0
    best = gradient_norm * gradient_norm / curvature if 0.0 < curvature < math.inf else longest
    return tuple((best if 0.0 < best < math.inf else longest) * share for share in shares)


def jumps(losses: Sequence[float], *, num_before: int = 20, least_spreads: float = 10.0) -> tuple[Jump, ...]:
    """Return the sudden rises in a history of losses, one for each stretch of high ones.

    A rise counts where the median of three losses (a single bad batch is forgiven) lies `least_spreads` spreads above
    the median of the ones before it. Their spread is their median absolute deviation, scaled to a standard deviation,
    and at least 2 % of their level.

    Args:
        losses: of each step.
        num_before: steps that the level before is taken from, at least 5.
        least_spreads: a smaller rise is noise.

    Raises:
        ArgumentError: `num_before` is below 5.

    Example:
        >>> jumps([1.0, 1.1, 0.9, 1.0, 1.1] * 4 + [50.0, 60.0, 40.0] + [1.0] * 5)
        (Jump(step=20, before=1.0, after=50.0, spreads=330.50...),)
    """
    num_before = whole("num_before", num_before, minimum=5, way_out="pass for example 20")
    found: list[Jump] = []
    quiet_from = 0
    for step in range(5, len(losses) - 2):
        before = [loss for loss in losses[max(0, step - num_before) : step] if math.isfinite(loss)]
        if len(before) < 5 or step < quiet_from:
            continue
        level = median(before)
        spread = max(_DEVIATION * median(abs(loss - level) for loss in before), 0.02 * abs(level))
        after = median(loss if math.isfinite(loss) else math.inf for loss in losses[step : step + 3])
        first = losses[step] if math.isfinite(losses[step]) else math.inf
        if spread > 0.0 and min(after, first) - level > least_spreads * spread:
            found.append(Jump(step, level, after, (after - level) / spread))
            quiet_from = step + num_before
    return tuple(found)
