"""What a fit leaves behind: the loss of every step, and the epochs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclewise.errors import DivergedError
from cyclewise.landscape import Watched
from cyclewise.policies import Policy, identity
from cyclewise.ranks import is_distributed
from cyclewise.training.history import Epoch, History

# Reading a loss makes an accelerator wait, and averaging it makes ranks wait: then they are read so many at a time.
_STEPS_PER_LOOK = 32


class Recorder:
    """Collects the losses of a fit and turns them into a :class:`History`.

    Args:
        policy: the policy of the fastest group; rates and momenta are read from it, not collected.
        is_eager: look at every loss at once (free on a CPU) instead of some steps later.

    Attributes:
        watched: returns what a watch has measured so far; None where nobody watches.
    """

    def __init__(self, policy: Policy, *, is_eager: bool) -> None:
        self.policy = policy
        self.watched: Callable[[], Watched] | None = None
        self._steps_per_look = 1 if is_eager and not is_distributed() else _STEPS_PER_LOOK
        self._pending: list[Tensor] = []
        self._losses: list[float] = []
        self._epochs: list[Epoch] = []

    @property
    def num_steps(self) -> int:
        """Steps recorded so far."""
        return len(self._losses) + len(self._pending)

    @property
    def num_epochs(self) -> int:
        """Epochs recorded so far."""
        return len(self._epochs)

    @property
    def last_loss(self) -> float:
        """The last loss that was read; NaN before the first."""
        return self._losses[-1] if self._losses else math.nan

    def add_loss(self, loss: Tensor) -> bool:
        """Record the loss of the next step and return whether the losses have been looked at.

        Raises:
            DivergedError: a loss since the last look was not finite.
        """
        if self._steps_per_look == 1:
            value = loss.item()
            self._losses.append(value)
            # The one number that is not below infinity in size is none.
            if not -math.inf < value < math.inf:
                self._refuse(len(self._losses) - 1)
            return True
        self._pending.append(loss)
        if len(self._pending) < self._steps_per_look:
            return False
        self.look()
        return True

    def look(self) -> None:
        """Read the losses still on the device, and average them over the ranks.

        Raises:
            DivergedError: one of them was not finite, on any rank.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack(pending).float()
        if is_distributed():
            torch.distributed.all_reduce(losses)
            losses /= torch.distributed.get_world_size()
        first = len(self._losses)
        self._losses.extend(losses.tolist())
        for step in range(first, len(self._losses)):
            if not math.isfinite(self._losses[step]):
                self._refuse(step)

    def _refuse(self, step: int) -> None:
        lr = float(self.policy.lr(step))
        raise DivergedError(
            f"the training loss is {self._losses[step]} at step {step}, with a learning rate of {lr:.3g}; "
            "train with a lower max_lr (lr_find gives one), or look for NaN in the inputs",
            step=step,
            lr=lr,
        )

    def end_epoch(self, first_step: int, scores: Mapping[str, float], seconds: float) -> Epoch:
        """Record the epoch that began at `first_step`; `scores` are those of the validation data, by name."""
        metrics = dict(scores)
        losses = self._losses[first_step:]
        epoch = Epoch(
            step=len(self._losses),
            train_loss=float(np.mean(losses)) if losses else math.nan,
            valid_loss=metrics.pop("loss", None),
            metrics=metrics,
            seconds=seconds,
        )
        self._epochs.append(epoch)
        return epoch

    def is_healthy(self) -> bool:
        """Return whether the last epoch ended near the best loss so far: not destroyed, nor on its way to a divergence.

        Its end tells: its mean may still be that of better times. What its last step did is seen on validation data.
        """
        if not self._epochs:
            return True
        valid_loss = self._epochs[-1].valid_loss
        if valid_loss is not None and not math.isfinite(valid_loss):
            return False
        losses = self._losses[self._epochs[-2].step if len(self._epochs) > 1 else 0 :]
        if not losses:
            return True
        # Not the first loss alone: a lucky batch would be better than all that follow.
        first = self._losses[: self._epochs[0].step]
        start = float(np.median(first[: max(1, len(first) // 3)]))
        means = [epoch.train_loss for epoch in self._epochs]
        end = losses[-max(1, len(losses) // 4) :]
        # By how much a loss differs from the next, which a few that explode leave as it was.
        noise = float(np.median(np.abs(np.diff(losses)))) / math.sqrt(len(end)) if len(losses) > 1 else 0.0
        is_near = means[-1] <= _near(means[0], min(means))
        return is_near and float(np.mean(end)) <= _near(start, min(start, *means)) + noise

    def history(self) -> History:
        """Return what was recorded; losses still on the device are read, finite or not."""
        try:
            self.look()
        except DivergedError:
            pass
        steps = np.arange(len(self._losses))
        momentum = self.policy.momentum(steps)
        return History(
            lr=np.asarray(self.policy.lr(steps), dtype=np.float64),
            momentum=np.full(len(steps), math.nan) if momentum is None else np.asarray(momentum, dtype=np.float64),
            loss=np.array(self._losses),
            epochs=tuple(self._epochs),
            policies=(identity.text(self.policy),),
            watched=None if self.watched is None else self.watched(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded, as a tensor and plain values; read with :meth:`look` before."""
        return {
            "losses": torch.tensor(self._losses, dtype=torch.float64),
            "epochs": [dict(vars(epoch)) for epoch in self._epochs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what was recorded."""
        self._pending = []
        self._losses = state["losses"].tolist()
        self._epochs = [Epoch.from_dict(epoch) for epoch in state["epochs"]]


def _near(start: float, best: float) -> float:
    """Return how high a loss near the best may be: half of the way up to the start, or a tenth above the best."""
    return best + max(0.5 * (start - best), 0.1 * abs(best))
