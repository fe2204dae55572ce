"""Rules on how signals travel: dead units, gradients by layer, gradients through time."""

import math
from typing import TYPE_CHECKING

from cyclewise.landscape.findings import Finding, Severity
from cyclewise.landscape.recurrence import Recurrence
from cyclewise.landscape.rules_place import saddle

if TYPE_CHECKING:
    from cyclewise.landscape.diagnosis import Diagnosis

_SEVERE_DEAD = 0.75
_WARNING_DEAD = 0.6
_FEWEST_UNITS = 4

# The gradient at the first layer over that at the output.
_SEVERE_VANISHED, _WARNING_VANISHED = 1e-4, 1e-2
_SEVERE_EXPLODED, _WARNING_EXPLODED = 200.0, 30.0
_FEWEST_LAYERS = 4

# The influence of the first state on the last.
_SEVERE_GROWTH, _WARNING_GROWTH = 1e2, 30.0
_SEVERE_FADING, _WARNING_FADING = 1e-4, 1e-2
_FEWEST_STEPS = 20
# Steps at the beginning of which less than 1 % is left. Over fewer, gates open by training: from their default weights
# (a factor of 0.62) LSTM and GRU learnt to add two numbers of 20, 28 and 40 steps, of which 10 to 30 were forgotten.
_MANY_FORGOTTEN = 35.0
_STD_ERRORS = 2.0
# A step should not move the parameters by more than this share of their length.
_LARGEST_MOVE = 0.01


def dead_units(d: "Diagnosis") -> Finding | None:
    """Find the layer with the most units that are the same for every sample."""
    if gradient_flow(d) is not None:
        return None  # where a signal fades or explodes layer by layer, constant units are what follows from it
    shares = [
        (max(layer.dead_share or 0.0, layer.constant_share or 0.0), layer)
        for layer in d.layers
        if (layer.num_units or 0) >= _FEWEST_UNITS
    ]
    if not shares:
        return None
    share, layer = max(shares, key=lambda pair: pair[0])
    if share < _WARNING_DEAD:
        return None
    if share != layer.dead_share and saddle(d) is not None:
        return None  # units that are constant by symmetry, not by an activation that cuts them off
    what = "are zero" if share == layer.dead_share else "never change"
    return Finding(
        "dead_units",
        "severe" if share >= _SEVERE_DEAD else "warning",
        f"{share:.0%} of the units that enter {layer.name} {what} on every sample: no gradient gets through them.",
        f"{round(share * (layer.num_units or 0))} of {layer.num_units} units; root mean square of the activation "
        f"{layer.activation:.2g}",
        "Draw the weights of the layer before it anew (He initialisation, biases zero), use a leaky activation, and "
        f"lower max_lr{_tenth(d)} or warm up longer so that no step kills them again.",
    )


def gradient_flow(d: "Diagnosis") -> Finding | None:
    """Compare the gradient at the first layer with that at the output: it vanishes, or explodes, never both."""
    total, factor = d.flow_total, d.flow_factor
    if total is None or factor is None or len(d.layers) < _FEWEST_LAYERS:
        return None
    evidence = (
        f"d loss / d activation {d.layers[0].gradient_norm:.2g} at {d.layers[0].name}, "
        f"{d.layers[-1].gradient_norm:.2g} at the output: a factor of {factor:.3g} per layer"
    )
    # Exactly zero is blocked, by dead units or zero weights; what vanishes layer by layer leaves something.
    if 0.0 < total <= _WARNING_VANISHED and factor < 1.0:
        return Finding(
            "vanishing_gradients",
            "severe" if total <= _SEVERE_VANISHED else "warning",
            f"Gradients vanish on their way to the first layers: {total:.1g} of them is left.",
            evidence,
            "Normalise between layers (LayerNorm, BatchNorm), add shortcuts, or draw the weights for their activation "
            f"(gain {1.0 / factor:.2g} times the present one). No learning rate makes up for it: the last layers would "
            "diverge first.",
        )
    if total >= _WARNING_EXPLODED and factor > 1.0:
        return Finding(
            "exploding_gradients",
            "severe" if total >= _SEVERE_EXPLODED else "warning",
            f"Gradients explode on their way to the first layers: they grow {total:.1g} times.",
            evidence,
            f"Scale the weights by {1.0 / factor:.2g}, or normalise between layers; until then clip at norm "
            f"{_clip(d)} and warm up.",
        )
    return None


def memory(d: "Diagnosis") -> Finding | None:
    """Look at the recurrence that changes the gradient most through time."""
    found = [(r, _log_change(r)) for r in d.recurrences if r.num_steps >= _FEWEST_STEPS]
    growing = [(r, change) for r, change in found if r.growth_factor - _error(r) > 1.0]
    if growing:
        recurrence, change = max(growing, key=lambda pair: pair[1])
        if change >= math.log(_WARNING_GROWTH):
            return Finding(
                "exploding_memory",
                "severe" if change >= math.log(_SEVERE_GROWTH) else "warning",
                f"In {recurrence.name} the gradient grows by {recurrence.growth_factor:.3g} per step back in time.",
                f"{_power(change)} over {recurrence.num_steps} steps",
                f"Clip the gradient at norm {_clip(d)}, scale the recurrent weights by "
                f"{1.0 / recurrence.growth_factor:.2g} (or make them orthogonal), or cut sequences after "
                f"{_cut(recurrence)} steps.",
            )
    fading = [(r, change) for r, change in found if r.growth_factor + _error(r) < 1.0 and r.reads_end]
    if not fading:
        return None
    recurrence, change = min(fading, key=lambda pair: pair[1])
    if change > math.log(_WARNING_FADING):
        return None
    horizon = recurrence.reach(0.01)
    is_far = recurrence.num_steps - (horizon or 0.0) >= _MANY_FORGOTTEN
    severity: Severity = "severe" if change <= math.log(_SEVERE_FADING) and is_far else "warning"
    return Finding(
        "fading_memory",
        severity,
        f"{recurrence.name} forgets: what lies more than {horizon or 0:.0f} steps back has 1 % of its influence left.",
        f"a factor of {recurrence.growth_factor:.3g} per step, {_power(change)} over {recurrence.num_steps} steps, and "
        "the loss reads the last state only",
        f"Scale the recurrent weights to a factor of 1 (by {1.0 / max(recurrence.growth_factor, 1e-3):.2g}), open the "
        f"forget gates (bias {math.log(max(recurrence.num_steps - 1, 2)):.1f}), or read the states in between "
        f"(attention, a mean): it learns from the last {horizon or 0:.0f} steps, and no learning rate changes that.",
    )


def _log_change(recurrence: Recurrence) -> float:
    """Return the logarithm of the influence of the first state, by the factor: the influence itself may underflow."""
    factor = max(recurrence.growth_factor, 1e-30)
    return (recurrence.num_steps - 1) * math.log(factor)


def _error(recurrence: Recurrence) -> float:
    return _STD_ERRORS * (recurrence.growth_factor_std_error or 0.0)


def _cut(recurrence: Recurrence) -> int:
    return max(1, round(math.log(10.0) / math.log(recurrence.growth_factor)))


def _power(log_change: float) -> str:
    return f"a factor of 1e{log_change / math.log(10.0):+.1f}"


def _clip(d: "Diagnosis") -> str:
    if d.parameter_norm and d.lr:
        return f"{_LARGEST_MOVE * d.parameter_norm / d.lr:.2g}"
    return "1"


def _tenth(d: "Diagnosis") -> str:
    return f" to {d.lr / 10.0:.2g}" if d.lr else ""
