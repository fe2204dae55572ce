"""Rules on the step: a rate above the stability limit, and cliffs within one step."""

import math
from typing import TYPE_CHECKING

from cyclewise.landscape.cliffs import Descent
from cyclewise.landscape.findings import Finding, Severity

if TYPE_CHECKING:
    from cyclewise.landscape.diagnosis import Diagnosis

# The rate over the limit. Training hovers about 1 (arXiv:2103.00065), and starts up to 4 and more come back by
# themselves (the catapult of arXiv:2003.02218).
_SEVERE_RATIO = 8.0
_WARNING_RATIO = 2.5
_INFO_RATIO = 0.8
# What the next step must raise the loss by, as a share of it, for the limit to be more than an opinion.
_SEVERE_RISE = 0.1
_PLAIN = ("SGD", "VelocitySGD")
# A step that raises the loss by this share of it is more than noise.
_RISE = 0.5
# The gradient after a step, over what the quadratic model promises.
_SURPRISE = 3.0
_SEVERE_JUMP = 3.0
_MARGIN = 0.5


def unstable_step(d: "Diagnosis") -> Finding | None:
    """Compare the rate with the optimizer's limit, or, where it has none, with what its own step does."""
    ratio, limit, source = _ratio(d)
    if ratio is None or limit is None or ratio < _INFO_RATIO:
        return None
    severity = _severity(d, ratio)
    evidence = f"rate {d.lr:.3g}, {source} {limit:.3g}"
    if d.sharpness is not None:
        evidence += f", sharpness {d.sharpness.value:.3g}"
    if d.own_step is not None:
        evidence += f"; the next step changes the loss by {_change(d.own_step):.3g}, from {d.loss:.4g}"
    if severity == "info":
        return Finding(
            "unstable_step",
            severity,
            f"The rate is {ratio:.2g} times the largest stable one: the edge of stability, where training settles.",
            evidence,
            f"Nothing, while the loss falls; a peak far above {limit:.2g} would need a warm-up.",
        )
    return Finding(
        "unstable_step",
        severity,
        f"The learning rate is {ratio:.2g} times the largest that is stable here.",
        evidence,
        f"Lower max_lr to {_MARGIN * limit:.2g}, or begin there and let a warm-up find out whether the sharpness gives "
        "way to more.",
    )


def cliff(d: "Diagnosis") -> Finding | None:
    """Find a wall that the curvature at the present point does not announce, within the next step."""
    step = d.own_step
    if step is None or (_ratio(d)[0] or 0.0) >= _WARNING_RATIO:
        return None
    reachable = [i for i, factor in enumerate(step.factors) if factor <= 1.0]
    heights = [_height(step, i, d.loss) for i in reachable]
    if not heights or max(heights) < _RISE:
        return None
    surprises = [_surprise(step, i) for i in reachable]
    if max(surprises) < _SURPRISE:
        return None
    safe = max((step.factors[i] for i in reachable if step.actual[i] <= 0.0), default=step.factors[0])
    severity: Severity = "severe" if max(heights) >= _SEVERE_JUMP else "warning"
    clip = "" if d.gradient_norm is None else f"Clip the gradient at norm {safe * d.gradient_norm:.2g}, or lower"
    rate = "" if not d.lr else f" max_lr to {safe * d.lr:.2g}."
    return Finding(
        "cliff",
        severity,
        "There is a cliff within the next step: the loss rises where the curvature here promises a fall.",
        f"promised {step.predicted[reachable[-1]]:.3g}, actual {step.actual[reachable[-1]]:.3g} from a loss of "
        f"{d.loss:.4g}; the gradient grows {_factor(max(surprises))} times as long as promised",
        f"{clip}{rate}",
    )


def _severity(d: "Diagnosis", ratio: float) -> Severity:
    """Grade a ratio; the limit of an optimizer that divides by its noisy state counts if the next step confirms it."""
    if ratio < _WARNING_RATIO:
        return "info"
    rise = math.nan if d.own_step is None else _change(d.own_step)
    rises = not math.isfinite(rise) or rise > _SEVERE_RISE * abs(d.loss)
    if d.own_step is not None and not rises:
        return "warning" if d.settings.get("optimizer") in _PLAIN else "info"
    return "severe" if ratio >= _SEVERE_RATIO else "warning"


def _ratio(d: "Diagnosis") -> tuple[float | None, float | None, str]:
    """Return the rate over its limit, the limit, and where that comes from."""
    if d.lr is None or d.lr <= 0.0:
        return None, None, ""
    if d.stability_limit is not None:
        return d.lr / d.stability_limit, d.stability_limit, "stability limit"
    step = d.own_step
    if step is None or len(step.factors) < 2:
        return None, None, ""
    slope, curvature = _quadratic(step)
    if slope >= 0.0 or curvature <= 0.0:
        return None, None, ""
    ratio = 0.5 * curvature / -slope
    return ratio, d.lr / ratio, "rate at which the optimizer's own step stops helping"


def _quadratic(step: Descent) -> tuple[float, float]:
    """Return slope and curvature along the step, from two of its predictions."""
    first, last = step.factors[0], step.factors[-1]
    per_first, per_last = step.predicted[0] / first, step.predicted[-1] / last
    curvature = 2.0 * (per_last - per_first) / (last - first)
    return per_first - 0.5 * curvature * first, curvature


def _change(step: Descent) -> float:
    return step.actual[step.factors.index(1.0)] if 1.0 in step.factors else math.nan


def _height(step: Descent, index: int, loss: float) -> float:
    """Return the rise of the loss at one share of the step, in units of the loss or of the promised fall."""
    if not math.isfinite(step.actual[index]):
        return math.inf
    unit = max(abs(loss), max(-p for p in step.predicted), step.resolution)
    return step.actual[index] / unit if unit > 0.0 else 0.0


def _surprise(step: Descent, index: int) -> float:
    norm, expected = step.gradient_norms[index], max(step.predicted_norms[index], step.gradient_norm)
    if not math.isfinite(norm):
        return math.inf
    return norm / expected if expected > 0.0 else 1.0


def _factor(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "infinitely many"
