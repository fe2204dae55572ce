"""Looks at the held-out batches before and during the sweeps, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# The best of several looks is compared, so chance alone passes two standard deviations now and then.
FEWEST_DEVIATIONS = 2.5
# Past doubt: another look could not change what is concluded.
CERTAIN_DEVIATIONS = 2.0 * FEWEST_DEVIATIONS


@dataclass(frozen=True)
class HeldOut:
    """What one look at the held-out batches saw.

    Attributes:
        losses: mean over the ranks, one per batch.
        link: how far, in standard deviations, the loss with the true targets lies below the loss with the targets of
            other samples of the batch; None where targets cannot be exchanged.
        rate: that the next update was to take; 0.0 before training.
    """

    losses: tuple[float, ...]
    link: float | None
    rate: float = 0.0


@dataclass
class Looks:
    """What the looks of one range test saw.

    Attributes:
        start: before training; None where nothing is held out.
        early: on the way through the second sweep.
        late: on the way through the last sweep.

    Example:
        >>> looks = Looks(HeldOut((2.0, 2.2), 0.5), late=[HeldOut((1.0, 1.3), 3.0)])
        >>> round(looks.improvement(), 6), round(looks.fall(), 6), looks.link(), looks.grew()
        (19.0, 0.452381, 3.0, True)
    """

    start: HeldOut | None = None
    early: list[HeldOut] = field(default_factory=list)
    late: list[HeldOut] = field(default_factory=list)

    def improvement(self) -> float | None:
        """Return by how many standard errors the best late look lies below the start; None of less than two batches."""
        return self._improvement(self.late)

    def early_improvement(self) -> float | None:
        """Return the same of the best early look."""
        return self._improvement(self.early)

    def fall(self) -> float:
        """Return the share of the loss before training that the best late look is lower by; 0.0 if unknown."""
        if self.start is None or not self.start.losses:
            return 0.0
        start = float(np.mean(self.start.losses))
        best = min((float(np.mean(look.losses)) for look in self.late), default=start)
        return (start - best) / abs(start) if start and math.isfinite(best) else 0.0

    def link(self) -> float | None:
        """Return the clearest link between inputs and targets after the start; None if unknown."""
        links = (look.link for look in [*self.early, *self.late])
        return max((link for link in links if link is not None and math.isfinite(link)), default=None)

    def early_links(self) -> list[tuple[float, float]]:
        """Return the rates of the early looks, and how clear the link was at each, where it is known."""
        return [(look.rate, look.link) for look in self.early if look.link is not None and math.isfinite(look.link)]

    def grew(self) -> bool:
        """Return whether the link between inputs and targets became clearer on the way."""
        before, clearest = None if self.start is None else self.start.link, self.link()
        return before is not None and clearest is not None and clearest - before >= FEWEST_DEVIATIONS

    def has_enough_early(self) -> bool:
        """Return whether another early look could change no conclusion."""
        return self._is_linked() and self.grew()

    def has_enough_late(self) -> bool:
        """Return whether another late look could change no conclusion."""
        gain = self.improvement()
        return self._is_linked() and gain is not None and gain >= CERTAIN_DEVIATIONS

    def _improvement(self, looks: Sequence[HeldOut]) -> float | None:
        if self.start is None or len(self.start.losses) < 2:
            return None
        start = np.array(self.start.losses)
        # A gain that is the same in every batch, and next to nothing in all, is no improvement either.
        least = 0.01 * float(start.std(ddof=1)) + 1e-6 * float(np.abs(start).mean()) + 1e-30
        best = -math.inf
        for look in looks:
            gains = start - np.array(look.losses)
            if np.isfinite(gains).all():
                error = max(float(gains.std(ddof=1)) / math.sqrt(len(gains)), least)
                best = max(best, float(gains.mean()) / error)
        return best

    def _is_linked(self) -> bool:
        clearest = self.link()
        return clearest is not None and clearest >= CERTAIN_DEVIATIONS
