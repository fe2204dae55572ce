"""The thing under test: update it at a rate, score it on what it does not train on, put it back to its start."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from cyclewise.copies import copied
from cyclewise.errors import DivergedError
from cyclewise.param_groups import read_rates, write_rates
from cyclewise.range_test.exchanged import comparing, deviations_of, mean_and_variance, with_exchanged_targets
from cyclewise.range_test.kept import keep, num_samples
from cyclewise.range_test.looks import HeldOut
from cyclewise.range_test.relation import are_related
from cyclewise.range_test.scoring import Scoring
from cyclewise.range_test.traits import traits_of
from cyclewise.ranks import least_over_ranks, mean_over_ranks, sum_over_ranks
from cyclewise.state import Snapshot, seed_everything
from cyclewise.stepping import Step, device_of

_NUM_HELD_OUT = 6
# So many of them are scored all along a sweep: more tell little more, and cost.
_NUM_ON_THE_WAY = 3
# Exchanges of targets over all held-out batches: of fewer, chance alone can stand five of its own deviations apart.
_NUM_EXCHANGES = 24
# Scores over all held-out batches that say how well a loss repeats itself: of fewer, chance alone can halve the answer.
_NUM_REPEATED = 24
_ROUNDING = 1e-5
# Gradients are asked after in the first updates alone: counting in all of them would cost.
_NUM_WATCHED = 4
# A tensor's size and movement are estimated from at most this many of its elements.
_NUM_SAMPLED = 1000


class Trial:
    """A model with its optimizer and batches, to be trained from the same start again and again.

    Args:
        model: the model, in train mode.
        optimizer: its optimizer.
        update: makes one update from the batches of one step and returns the loss before it.
        evaluate: returns the loss of one batch without updating; None where nobody can.
        step: the library's own step, where `update` is made of it.
        snapshot: the start.
        seed: seeds the global generators at each start.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        update: Callable[[list[Any]], float],
        evaluate: Callable[[Any], float] | None,
        step: Step | None,
        snapshot: Snapshot,
        seed: int,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.ratios = _ratios(optimizer)
        self.traits = traits_of(optimizer, self._fastest_group())
        self.num_updates = 0
        self.num_evaluations = 0
        self.num_samples: int | None = None
        self.held_out: list[Any] = []
        self.scores_first_held_out = False
        self.compares_targets = False
        self.gaps: list[float] = []
        self.links: list[float] = []
        self.training_loss = math.nan
        self._update = update
        self._evaluate = evaluate
        self._step = step
        self._snapshot = snapshot
        self._scoring = Scoring(model)
        self._seed = seed
        self.steps_in_pass: float | None = None
        self._batches: list[Any] = []
        self._num_batches = 0  # the fewest over the ranks
        self._position = 0
        self._span = 0
        self._per_step = 1 if step is None else step.accumulation_steps
        self._device = device_of(model)
        self._had_gradient = True

    def load(self, train_loader: Any, valid_loader: Any, num_steps: int) -> None:
        """Keep the batches of up to `num_steps` steps, and held-out ones if somebody can score them.

        Held-out batches come from `valid_loader`, else they are set aside from the training batches.
        """
        seed_everything(self._seed)
        scores = self._evaluate is not None
        wanted = num_steps * self._per_step + (_NUM_HELD_OUT if scores and valid_loader is None else 0)
        self._batches, ended = keep(train_loader, wanted)
        self.num_samples = self._whole_set(ended)
        self.steps_in_pass = self._length(train_loader, ended)
        if scores and valid_loader is not None:
            self.held_out, _ = keep(valid_loader, _NUM_HELD_OUT, name="valid_loader")
            self.held_out = self.held_out[: least_over_ranks(len(self.held_out), self._device)]
            self.scores_first_held_out = True
        elif scores:
            count = min(_NUM_HELD_OUT, -(-len(self._batches) // 4)) if len(self._batches) > 1 else 0
            count = least_over_ranks(count, self._device)
            # From all over the pass: a loader that is not shuffled has its first batches alike.
            chosen = {i * len(self._batches) // count for i in range(count)} if count else set()
            if count and len(self._batches) == 2:  # the other is all that is trained on
                chosen = {min((0, 1), key=lambda i: num_samples(self._batches[i]) or 0)}
            self.held_out = [batch for i, batch in enumerate(self._batches) if i in chosen]
            self._batches = [batch for i, batch in enumerate(self._batches) if i not in chosen]
        self._num_batches = least_over_ranks(len(self._batches), self._device)

    def reset(self, *, steps_per_pass: int | None = None) -> int:
        """Put everything back to the start; the next steps see the same batches and random numbers again.

        Args:
            steps_per_pass: take the batches of so many steps again and again, at most; None: all of them.

        Returns:
            after how many steps the same batches are taken again.
        """
        self._snapshot.restore()
        torch.clear_autocast_cache()
        seed_everything(self._seed)
        if self._step is None:
            self.model.train()
        else:
            self._step.train_mode()
        self._position = 0
        self._span = len(self._batches)
        if steps_per_pass is not None:
            own = min(steps_per_pass, max(1, self._span // self._per_step))
            self._span = least_over_ranks(own, self._device) * self._per_step
        self.gaps, self.links = [], []
        return -(-self._span // self._per_step)

    def train(self, rate: float) -> float:
        """Make one update at `rate` (of the fastest group) and return the loss before it, the mean over the ranks.

        The loss is that of the first held-out batch where those were given, else of the training batch, which
        `training_loss` is in any case.
        """
        write_rates(self.optimizer, [ratio * rate for ratio in self.ratios])
        batches = self._of_step(self._position)
        self._position += self._per_step
        seen = None
        if self.scores_first_held_out and self._evaluate is not None:
            self.num_evaluations += 1
            with self._scoring.block():
                seen = self._evaluate(copied(self.held_out[0]))
        with comparing(self._step if self.compares_targets else None) as compared, self._watching_gradients():
            loss = self._update(batches)
        # In an autocast block of the caller's, torch would go on with the weights before the update.
        torch.clear_autocast_cache()
        self.num_updates += 1
        gap, variance = (compared[0].gap, compared[0].variance) if compared else (math.nan, math.nan)
        # A held-out loss may still be finite where the training loss is not: both count.
        own = [loss, loss if seen is None else seen, gap, variance]
        loss, seen, gap, variance = mean_over_ranks(own, self._device)
        self.training_loss = loss
        if self.compares_targets:
            self.links.append(deviations_of(gap, variance))
            if self._position <= self._num_batches and math.isfinite(gap):
                self.gaps.append(gap)
        return seen if math.isfinite(loss) else loss

    def is_finite_at_start(self, step: int, *, may_update: bool) -> bool:
        """Return whether the batches of a step have a finite loss before any training; then it was the rate that broke.

        Args:
            step: of the sweep that was run last.
            may_update: whether one more update may be spent where nobody can score batches without one.
        """
        if self._evaluate is None and not may_update:
            return True
        self._snapshot.restore()
        seed_everything(self._seed)
        batches = self._of_step(step * self._per_step)
        if self._evaluate is None:
            write_rates(self.optimizer, [0.0 for _ in self.ratios])
            losses = [self._update(batches)]
            self.num_updates += 1
        else:
            losses = self._scores(batches, 1)[:, 0].tolist()
        return math.isfinite(mean_over_ranks([sum(losses)], self._device)[0])

    def look(self, rate: float = 0.0) -> HeldOut:
        """Score the held-out batches, and with them the same inputs with the targets of other samples.

        `rate` is that of the update to come; 0.0 before training.
        """
        self.num_evaluations += len(self.held_out)
        losses, gaps, spreads = self._scoring.attempt(self._look)
        losses = mean_over_ranks(losses, self._device)
        # A rank that could not exchange all targets must not leave the others waiting.
        sums = [sum(gaps), sum(spreads)] if 0 < len(gaps) == len(losses) else [math.nan, math.nan]
        gap, spread = mean_over_ranks(sums, self._device)
        return HeldOut(tuple(losses), gap / math.sqrt(spread) if spread > 0 else None, rate)

    def _look(self) -> tuple[list[float], list[float], list[float]]:
        losses, gaps, spreads = [], [], []
        per_batch = -(-_NUM_EXCHANGES // max(1, len(self.held_out)))
        assert self._evaluate is not None
        for batch in map(copied, self.held_out):
            exchanged = None if self._step is None else with_exchanged_targets(self._step, batch, per_batch)
            if exchanged is None:
                losses.append(self._evaluate(batch))
                continue
            true, *others = exchanged
            mean, variance = mean_and_variance(others)
            losses.append(true)
            gaps.append(mean - true)
            # The mean of the exchanged losses has noise of its own.
            spreads.append(variance * (1.0 + 1.0 / len(others)))
        return losses, gaps, spreads

    def passes(self, num_steps: int) -> float:
        """Return how often so many steps see each training sample; 0.0 where not all samples were seen."""
        return 0.0 if self.num_samples is None else num_steps * self._per_step / self._num_batches

    def score(self) -> list[float]:
        """Return the loss of each of the first held-out batches, the mean over the ranks."""
        return mean_over_ranks(self._scores(self.held_out[:_NUM_ON_THE_WAY], 1)[:, 0].tolist(), self._device)

    def num_new_steps(self, num_steps: int) -> int:
        """Return how many of so many steps take batches that none before them took."""
        return min(num_steps, self._num_batches // self._per_step)

    def score_steps(self, steps: Sequence[int]) -> list[float]:
        """Return the loss of a batch of each of these steps of a sweep over all batches, the mean over the ranks."""
        batches = [self._batches[step * self._per_step] for step in steps]
        return mean_over_ranks(self._scores(batches, 1)[:, 0].tolist(), self._device)

    def evaluation_noise(self) -> float | None:
        """Return the standard deviation that a step's loss has by itself: when the same batches are scored again.

        Measured on the held-out batches at the start; None where there are none. The random numbers go on from one
        score to the next: a loss that draws some (a sampled ELBO, random time steps) varies, one that does not is the
        same.
        """
        if not self.held_out or self._evaluate is None:
            return None
        self.reset()
        # Two scores say of most losses that they repeat themselves, up to rounding; only of the others are more taken.
        first, second = self._scores(self.held_out[:1], 2)[0]
        repeats = float(math.isclose(first, second, rel_tol=_ROUNDING))
        if mean_over_ranks([repeats], self._device) == [1.0]:
            return 0.0
        scores = self._scores(self.held_out, 1 + -(-_NUM_REPEATED // len(self.held_out)))
        square = float(scores.var(1, ddof=1).mean()) if np.isfinite(scores).all() else math.nan
        return math.sqrt(mean_over_ranks([square / self._per_step], self._device)[0])

    def _of_step(self, position: int) -> list[Any]:
        """Return copies of the batches of one step: whoever gets them may write into them."""
        indices = [(position + i) % self._span % len(self._batches) for i in range(self._per_step)]
        return [copied(self._batches[i]) for i in indices]

    def _scores(self, batches: Sequence[Any], repeats: int) -> NDArray[np.float64]:
        """Return the loss of each batch, as often as asked, [batches, repeats]."""
        assert self._evaluate is not None
        self.num_evaluations += repeats * len(batches)
        with self._scoring.block():
            return np.array([[self._evaluate(copied(batch)) for _ in range(repeats)] for batch in batches])

    def unit_rate(self, rate: float) -> float:
        """Make one update at `rate` and return the rate whose update would move the parameters by their own size.

        Returns 0.0 where the update moved nothing, infinity where the loss or the movement is not finite.
        """
        before = [_sample(p) for p in self._parameters()]
        try:
            loss = self.train(rate)
            while self._step is not None and self._step.skipped and self.num_updates < 30:
                # A fresh scaler begins too high and skips; such a step is none.
                self.num_updates -= 1
                loss = self.train(rate)
        except DivergedError:  # no scale is low enough for gradients that are not numbers
            return math.inf
        moved = size = count = 0.0
        for parameter, old in zip(self._parameters(), before, strict=True):
            share = parameter.numel() / max(1, old.numel())
            moved += share * float((_sample(parameter) - old).square().sum())
            size += share * float(old.square().sum())
            count += parameter.numel()
        loss, moved, size = mean_over_ranks([loss, moved, size], self._device)
        if not (math.isfinite(loss) and math.isfinite(moved)):
            return math.inf
        # Parameters that start at zero have no size: a hundredth each stands in.
        return rate * math.sqrt(max(size, 1e-4 * count) / moved) if moved > 0 else 0.0

    def has_classes(self) -> bool:
        """Return whether all ranks' targets are whole numbers, as class labels are, or zeros and ones of any kind."""
        pairs = [batch for batch in self._batches if isinstance(batch, (tuple, list)) and len(batch) > 1]
        targets = [pair[-1] for pair in pairs if isinstance(pair[-1], Tensor)]
        own = len(targets) == len(self._batches) and all(map(_are_classes, targets))
        return mean_over_ranks([float(own)], self._device) == [1.0]

    def is_related(self) -> bool | None:
        """Return whether the data alone show that the targets have to do with the inputs; None where they cannot tell.

        Over the ranks: whether most of them say so.
        """
        own = are_related([*self._batches, *self.held_out], seed=self._seed)
        known, related = mean_over_ranks([float(own is not None), float(bool(own))], self._device)
        return related > 0.5 if known == 1.0 else None

    def batch_size(self) -> int | None:
        """Return the samples per update over all ranks; None where a batch does not say how many it has."""
        count = num_samples(self._batches[0])
        return self._over_ranks(math.nan if count is None else count * self._per_step)

    def is_frozen(self) -> bool:
        """Return whether no parameter of the optimizer requires a gradient."""
        return not self._parameters()

    def has_zero_gradient(self) -> bool:
        """Return whether every gradient of the library's own last step, one of the first after a reset, was zero."""
        if self._step is None:
            return False
        return mean_over_ranks([float(not self._had_gradient)], self._device) == [1.0]

    @contextmanager
    def _watching_gradients(self) -> Iterator[None]:
        # After the update they may be gone: an optimizer may clear them itself.
        if self._step is None or self._position > _NUM_WATCHED * self._per_step:
            yield
            return
        self._had_gradient = False
        self._step.on_gradients.append(self._look_at_gradients)
        try:
            yield
        finally:
            self._step.on_gradients.remove(self._look_at_gradients)

    def _look_at_gradients(self, batches: Sequence[Any]) -> None:
        del batches
        # The smallest first: one that is not zero is enough.
        parameters = sorted(self._parameters(), key=Tensor.numel)
        self._had_gradient = self._had_gradient or not all(_is_zero(p.grad) for p in parameters)

    def _whole_set(self, ended: bool) -> int | None:
        """Return how many training samples there are on all ranks, if one pass was seen to its end."""
        counts = [num_samples(batch) for batch in self._batches] if ended else [None]
        return self._over_ranks(sum(math.nan if count is None else count for count in counts))

    def _over_ranks(self, count: float) -> int | None:
        # Of one type on all ranks, whether or not theirs is known.
        total = float(sum_over_ranks(torch.tensor(count, dtype=torch.float32, device=self._device)))
        return int(total) if math.isfinite(total) else None

    def _length(self, train_loader: Any, ended: bool) -> float | None:
        """Return in how many steps a run sees each sample once, the fewest over the ranks; None where nobody knows."""
        kept = len(self._batches)
        try:
            batches = len(train_loader)
        except Exception:  # a length is nothing that a range test may fail for
            batches = 0
        # What was seen is true, whatever the loader says of itself.
        batches = (kept if ended else 0) if batches < 1 else max(batches, kept)
        return least_over_ranks(min(batches, 2**62), self._device) / self._per_step or None

    def _fastest_group(self) -> dict[str, Any]:
        groups = zip(self.ratios, self.optimizer.param_groups, strict=True)
        return max(groups, key=lambda pair: pair[0], default=(0.0, {}))[1]

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]


def _are_classes(targets: Tensor) -> bool:
    return not targets.is_floating_point() or bool(((targets == 0.0) | (targets == 1.0)).all())


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    flat = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
    return flat[:: max(1, len(flat) // _NUM_SAMPLED)].double().clone()


def _ratios(optimizer: Optimizer) -> Sequence[float]:
    rates = read_rates(optimizer)
    if not any(rates):  # a scheduler's warm-up has not begun yet
        rates = [float(group.get("initial_lr", 0.0)) for group in optimizer.param_groups]
    fastest = max(rates, default=0.0)
    return [rate / fastest for rate in rates] if fastest > 0 else [1.0] * len(rates)


def _is_zero(gradient: Tensor | None) -> bool:
    if gradient is None:
        return True
    return not bool((gradient.coalesce().values() if gradient.is_sparse else gradient).count_nonzero())
