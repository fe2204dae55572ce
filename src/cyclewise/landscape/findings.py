"""What stands in the way, in words: a finding with its evidence and its remedy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cyclewise._validation import one_of

Severity = Literal["info", "warning", "severe"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "severe")

# In the order in which findings of one severity are listed: what causes others comes before them.
KINDS = (
    "dead_units",
    "exploding_memory",
    "exploding_gradients",
    "vanishing_gradients",
    "unstable_step",
    "cliff",
    "saddle",
    "plateau",
    "fading_memory",
    "distinct_minima",  # in a minimum every gradient is noise
    "noise_dominated",
    "ill_conditioned",
    "distant_minimum",
)


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way.

    Args:
        kind: one of "ill_conditioned", "unstable_step", "saddle", "plateau", "cliff", "exploding_gradients",
            "vanishing_gradients", "dead_units", "exploding_memory", "fading_memory", "noise_dominated",
            "distinct_minima" and "distant_minimum".
        severity: "severe": training cannot go well until it is dealt with; "warning": it costs time or quality;
            "info": worth knowing, as it is normal.
        summary: one sentence: what was found.
        evidence: the numbers it rests on.
        remedy: what to do about it, with numbers; for the learning-rate policy wherever it can act.

    Raises:
        ArgumentError: there is no such kind or severity.

    Example:
        >>> print(Finding("cliff", "warning", "The loss jumps within one step.", "1.2 to 94", "Clip at norm 0.5."))
        warning: cliff: The loss jumps within one step.
    """

    kind: str
    severity: Severity
    summary: str
    evidence: str
    remedy: str

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("severity", self.severity, SEVERITIES)

    @property
    def rank(self) -> tuple[int, int]:
        """The place among findings: severe ones first, then what causes others."""
        return -SEVERITIES.index(self.severity), KINDS.index(self.kind)

    def __str__(self) -> str:
        return f"{self.severity}: {self.kind}: {self.summary}"

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "summary": self.summary,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Finding":
        """Return the finding that :meth:`to_dict` described."""
        return cls(**values)
