"""From numbers to findings: pure rules on a diagnosis, most severe first.

Every threshold was set on the development cases of ``benchmarks/diagnosis`` (planted troubles against healthy runs) and
on nothing else; where a paper gives one, the rule says so. A rule knows the noise of what it reads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cyclewise.landscape.findings import Finding
from cyclewise.landscape.rules_flow import dead_units, gradient_flow, memory
from cyclewise.landscape.rules_place import ill_conditioned, noise_dominated, plateau, saddle, start_and_present
from cyclewise.landscape.rules_step import cliff, unstable_step

if TYPE_CHECKING:
    from cyclewise.landscape.diagnosis import Diagnosis

Rule = Callable[["Diagnosis"], Finding | None]

RULES: tuple[Rule, ...] = (
    dead_units,
    memory,
    gradient_flow,
    unstable_step,
    cliff,
    saddle,
    plateau,
    ill_conditioned,
    noise_dominated,
    start_and_present,
)
# What follows from a severe finding is no finding of its own.
_CONSEQUENCES = {
    "dead_units": {"vanishing_gradients", "plateau"},
    "exploding_memory": {"exploding_gradients", "cliff"},
    "exploding_gradients": {"cliff", "ill_conditioned"},
    "vanishing_gradients": {"plateau", "saddle"},
    "unstable_step": {"cliff"},
    "saddle": {"plateau"},
}


def judge(diagnosis: "Diagnosis") -> tuple[Finding, ...]:
    """Return what stands in the way: a pure function of the numbers.

    Example:
        >>> from cyclewise.landscape.diagnosis import Diagnosis
        >>> [f.kind for f in judge(Diagnosis(loss=1.0, num_parameters=2, lr=1.0, stability_limit=0.01))]
        ['unstable_step']
    """
    found = [finding for rule in RULES if (finding := rule(diagnosis)) is not None]
    explained = {kind for f in found if f.severity == "severe" for kind in _CONSEQUENCES.get(f.kind, ())}
    left = [finding for finding in found if finding.kind not in explained]
    return tuple(sorted(left, key=lambda finding: finding.rank))
