"""Rules on the place: saddles, plateaus, bad conditioning, noise, and whether another start would have been better."""

import math
from typing import TYPE_CHECKING

from cyclewise.landscape.findings import Finding

if TYPE_CHECKING:
    from cyclewise.landscape.diagnosis import Diagnosis

_STD_ERRORS = 2.0

# A saddle: the fall along negative curvature as a share of the loss, how much of it the gradient offers too, and the
# gradient as a share of the slope on the way down, below which it is all but zero whatever its noise. In the
# development cases it is below 0.01 on saddles whose gradient is more than noise, and above 1 on healthy runs.
_SADDLE_FALL = 0.05
_SEVERE_SADDLE_FALL = 0.3
_SADDLE_SHARE = 0.1
_SADDLE_SLOPE = 0.05
_RESIDUALS = 3.0

# A plateau: what a step as long as the parameters would change by slope, and by curvature, as shares of the loss.
_FLAT_SLOPE = 3e-3
_FLAT_CURVATURE = 0.1
_SEVERE_FLAT_SLOPE = 3e-4
# What each sample by itself would change: at most 0.008 on the development plateaus, and 0.06 and more where the
# gradients of samples that contradict each other cancel in a minimum.
_FLAT_SAMPLES = 0.03
# A weight as initialisation draws it, for models whose weights are all but zero.
_USUAL_WEIGHT = 0.1

# Ill-conditioning: the mean square of an input feature, over 1 and over the median feature, and the condition number,
# which is never severe by itself: a linear model of correlated features reaches 1e5 and trains.
_LARGE_INPUT = 100.0
_SEVERE_INPUT = 1e3
_SPREAD = 1e3
_CONDITION = 1e4

# Noise: the least that the noise scale is, over the batch size. Up to `_SMALL_BATCH` samples a larger batch costs next
# to no time; late in training the noise scale exceeds any batch (arXiv:1812.06162, section 3.2), which is no trouble.
_NOISY = 5.0
_SMALL_BATCH = 8.0
_VERY_NOISY = 100.0

# A hump on the line from the start, as a share of the loss there; and losses that are the same, as a share of the hump.
_HUMP = 0.05
_SAME = 0.1


def saddle(d: "Diagnosis") -> Finding | None:
    """Find negative curvature that offers what the gradient does not, because that is noise or all but zero."""
    profile = d.profile("smallest curvature")
    if d.lambda_min is None or profile is None or d.lambda_min.value >= -_RESIDUALS * d.lambda_min.residual:
        return None
    if d.gradient_norm is None or plateau(d) is not None:
        return None
    lowest = min(range(len(profile.losses)), key=lambda i: _or_infinite(profile.losses[i]))
    fall, distance = d.loss - _or_infinite(profile.losses[lowest]), abs(profile.distances[lowest])
    share = fall / abs(d.loss) if d.loss else 0.0
    if share < _SADDLE_FALL:
        return None
    offered = 0.0
    if d.taylor is not None:
        offered = max(0.0, -min((change for change in d.taylor.actual if math.isfinite(change)), default=0.0))
    if offered > _SADDLE_SHARE * fall:
        return None
    # The gradient's own noise decides; where there is next to none, near a saddle a gradient is short beside the slope
    # that waits on the way down.
    slope = fall / distance if distance else 0.0
    if _is_within_noise(d):
        gradient = "is within its own noise"
    elif d.gradient_norm <= _SADDLE_SLOPE * slope:
        gradient = "is all but zero"
    else:
        return None
    return Finding(
        "saddle",
        "severe" if share >= _SEVERE_SADDLE_FALL else "warning",
        f"This is a saddle: the gradient {gradient}, while the loss falls along a direction that curves down, by "
        f"{fall:.2g}.",
        f"smallest eigenvalue {d.lambda_min.value:.3g} ± {d.lambda_min.residual:.1g}; along it the loss falls from "
        f"{d.loss:.4g} to {d.loss - fall:.4g} within {distance:.2g}, by {slope:.2g} per unit, down the gradient (norm "
        f"{d.gradient_norm:.2g}; its noise alone {_noise_text(d)}) by {offered:.2g}",
        f"Raise the rate or start a cycle: leaving takes about {_steps_to_leave(d, fall)} at the present rate, in "
        "proportion to its inverse. Where all weights are equal or zero, draw them at random.",
    )


def plateau(d: "Diagnosis") -> Finding | None:
    """Find a place where neither slope nor curvature says anything: there is none, or too little for the loss."""
    if _is_without_gradients(d):
        return Finding(
            "plateau",
            "severe",
            "All gradients are zero, and so is the curvature: no rate can move parameters without a gradient.",
            f"gradient norm 0 over {d.num_parameters:,} parameters, of every sample; loss {d.loss:.4g}",
            "Look for dead units, a detached output or a constant loss.",
        )
    if d.gradient_norm is None or d.parameter_norm is None or d.sharpness is None or not d.loss:
        return None
    size = max(d.parameter_norm, _USUAL_WEIGHT * math.sqrt(d.num_parameters))
    slope = d.gradient_norm * size / abs(d.loss)
    steepest = max(abs(d.sharpness.value), 0.0 if d.lambda_min is None else abs(d.lambda_min.value))
    curvature = steepest * size**2 / abs(d.loss)
    if slope > _FLAT_SLOPE or curvature > _FLAT_CURVATURE or _is_minimum(d, size):
        return None
    return Finding(
        "plateau",
        "severe" if slope <= _SEVERE_FLAT_SLOPE else "warning",
        "This is a plateau: a step as long as the parameters themselves would hardly change the loss.",
        f"gradient norm {d.gradient_norm:.2g}, largest curvature {steepest:.2g}, size of the parameters {size:.2g}, "
        f"loss {d.loss:.4g}: such a step changes it by {slope:.1g} of itself by slope, {curvature:.1g} by curvature",
        "Look for outputs that are saturated or clamped, and for targets out of their reach: start them in the linear "
        "part, or use a loss on logits. A cycle with a high peak rate crosses a plateau that has an end.",
    )


def ill_conditioned(d: "Diagnosis") -> Finding | None:
    """Find inputs on very different or very large scales, and a convex place whose eigenvalues lie far apart."""
    worst = max(d.inputs, key=lambda inputs: inputs.largest, default=None)
    rate = f"; until then max_lr has to stay below {d.stability_limit:.2g}" if d.stability_limit else ""
    if worst is not None and worst.largest >= _LARGE_INPUT:
        spread = worst.largest / worst.median if worst.median else math.inf
        what = f"up to {math.sqrt(worst.largest):.2g} in root mean square, {math.sqrt(worst.median):.2g} in the median"
        return Finding(
            "ill_conditioned",
            "severe" if worst.largest >= _SEVERE_INPUT or spread >= _SPREAD else "warning",
            f"The inputs of {worst.name} are badly scaled, {what}: the loss is steep along a few directions only.",
            f"mean squares {worst.largest:.2g} at most and {worst.median:.2g} in the median, {worst.offset:.0%} of the "
            f"largest from its mean; {_spectrum(d)}",
            f"Normalise the inputs to mean 0 and variance 1{rate}.",
        )
    if d.condition_number is None or d.condition_number < _CONDITION or not _is_convex(d):
        return None
    return Finding(
        "ill_conditioned",
        "warning",
        f"The step costs more than it gains: with a condition number of {d.condition_number:.1g} the flattest "
        "direction hardly moves at any stable rate.",
        _spectrum(d),
        f"Normalise the inputs, precondition (Adam), or use momentum{rate}.",
    )


def noise_dominated(d: "Diagnosis") -> Finding | None:
    """Compare the noise scale with the batch."""
    signal = d.signal
    if signal is None:
        return None
    least = signal.lowest_scale
    if not least and signal.squared_norm < 0.0 and signal.std_error is not None:
        least = float(signal.num_samples)  # so little signal that even all samples together show none
    if least is None or least < _NOISY * signal.batch_size:
        return None
    is_small = signal.batch_size <= _SMALL_BATCH
    scale = d.noise_scale or least
    bound = "" if d.noise_scale else "at least "
    batch = 2 ** round(math.log2(max(scale, 1.0)))
    return Finding(
        "noise_dominated",
        "warning" if is_small or least >= _VERY_NOISY * signal.batch_size else "info",
        f"A batch of {signal.batch_size:.0f} is mostly noise: the noise scale is {bound}{scale:.2g} samples.",
        f"squared gradient {signal.squared_norm:.2g}{_plus_minus(signal.std_error)}, squared noise of one sample "
        f"{signal.variance:.2g}, measured on {signal.num_samples} samples",
        f"Accumulate {max(2, round(batch / signal.batch_size))} batches per step (about {batch} samples), or anneal "
        "the rate: a higher one only moves more by chance.",
    )


def start_and_present(d: "Diagnosis") -> Finding | None:
    """Look at the straight line from the start: a hump on it, beyond its noise, means a way around, or two minima."""
    journey = d.journey
    if journey is None or not math.isfinite(journey.losses[0]):
        return None
    if journey.hump <= max(_HUMP * abs(journey.losses[0]), _STD_ERRORS * (journey.std_error or 0.0)):
        return None
    if abs(journey.losses[0] - journey.losses[-1]) < _SAME * journey.hump:
        return Finding(
            "distinct_minima",
            "info",
            "Start and present are two minima of about the same loss, with a barrier between them.",
            f"{journey.losses[0]:.3g} at the start, {max(journey.losses):.3g} in between, {journey.losses[-1]:.3g} now",
            "Do not average their weights; an ensemble averages their predictions instead (fit_sgdr with snapshots).",
        )
    if journey.losses[0] < journey.losses[-1]:
        return None
    angle = "" if journey.angle is None else f"; the first step went {journey.angle:.0f} degrees away from it"
    return Finding(
        "distant_minimum",
        "warning",
        "Training had to go around: on the straight line from its start the loss rises before it falls.",
        f"{journey.losses[0]:.3g} at the start, {max(journey.losses):.3g} in between, {journey.losses[-1]:.3g} now, "
        f"over a distance of {journey.displacement:.3g}{angle}",
        "Search another start (search_start with LayerGains): one beyond the hump is nearer.",
    )


def _is_without_gradients(d: "Diagnosis") -> bool:
    """Return whether every gradient is exactly zero, and nothing says that this is a minimum or a saddle.

    In a minimum gradients can cancel, as those of the absolute value do, or all be zero where the loss curves up.
    """
    if d.gradient_norm != 0.0 or (d.signal is not None and d.signal.variance > 0.0):
        return False
    return not any(eigenvalue is not None and eigenvalue.value for eigenvalue in (d.sharpness, d.lambda_min))


def _is_minimum(d: "Diagnosis", size: float) -> bool:
    """Return whether the gradient is short because samples contradict each other, where the loss curves down nowhere.

    So it is where the loss that is left cannot be learnt, as noise in the labels. On a plateau no sample has a slope.
    """
    if d.signal is None or not (_is_convex(d) and _is_within_noise(d)):
        return False
    return math.sqrt(d.signal.variance) * size > _FLAT_SAMPLES * abs(d.loss)


def _is_convex(d: "Diagnosis") -> bool:
    if d.lambda_min is None or d.sharpness is None:
        return False
    return d.lambda_min.value >= -max(_RESIDUALS * d.lambda_min.residual, 1e-6 * abs(d.sharpness.value))


def _spectrum(d: "Diagnosis") -> str:
    parts = []
    if d.sharpness is not None and d.lambda_min is not None:
        parts.append(f"eigenvalues from {d.lambda_min.value:.2g} to {d.sharpness.value:.2g}")
    if d.condition_number is not None:
        bound = "at least " if d.condition_is_lower_bound else ""
        parts.append(f"condition number {bound}{d.condition_number:.2g}")
    if d.best_step is not None:
        parts.append(f"best step down the gradient {d.best_step:.2g}")
    return ", ".join(parts)


def _steps_to_leave(d: "Diagnosis", fall: float) -> str:
    """Return in words how long descent takes to leave: the way grows by (1 + lr |lambda|) per step."""
    if not d.lr or d.lambda_min is None or not d.gradient_norm:
        return "many steps"
    reach = math.sqrt(2.0 * fall * abs(d.lambda_min.value))
    steps = math.log(max(reach / d.gradient_norm, 2.0)) / math.log1p(d.lr * abs(d.lambda_min.value))
    return f"{steps:.2g} steps"


def _is_within_noise(d: "Diagnosis") -> bool:
    """Return whether nothing tells the gradient from zero: it is not known to be longer than its noise makes it.

    Two tests, which both have to find nothing. The standard error of the squared norm is too large where the gradient
    is long, as most of it then comes from the product of the two; the length of the noise is too lenient a measure
    where it is spread over many directions.
    """
    signal = d.signal
    if signal is None or d.gradient_norm is None:
        return False
    is_as_short = d.gradient_norm <= _STD_ERRORS * signal.noise_norm
    return is_as_short and (signal.std_error is None or signal.squared_norm <= _STD_ERRORS * signal.std_error)


def _noise_text(d: "Diagnosis") -> str:
    return "not known" if d.signal is None else f"{d.signal.noise_norm:.2g}"


def _plus_minus(error: float | None) -> str:
    return "" if error is None else f" ± {error:.1g}"


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
