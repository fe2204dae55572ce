"""Running a search: candidates to workers and losses back, then the leaders again, then what they are held against."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyclewise.engines import Workers, run_all
from cyclewise.progress import Bar
from cyclewise.start.algorithms import is_sequential
from cyclewise.start.evaluation import Evaluate, Job
from cyclewise.start.journal import Event
from cyclewise.start.search import UNTOUCHED, Candidate, Evaluation, Search, checked_loss

# Candidates per generation where the result must not depend on the number of workers.
_GENERATION = 8
# Evaluations again of the leaders, as a share of the budget, and at most so many.
_SHARE_OF_REPEATS = 5
_MOST_REPEATS = 9
_REPETITIONS = 3
_FEWEST_FOR_REPEATS = 15


@dataclass
class Plan:
    """How the budget is divided.

    Attributes:
        budget: evaluations of the objective in all.
        explores: candidates to ask for.
        repeats: evaluations left to see the untouched start and the leaders again.
    """

    budget: int
    explores: int
    repeats: int

    @classmethod
    def of(cls, budget: int, *, repeats: bool) -> "Plan":
        """Return the plan: a fifth for repetitions, nine at most, none for a small budget.

        >>> Plan.of(60, repeats=True), Plan.of(10, repeats=True)
        (Plan(budget=60, explores=51, repeats=9), Plan(budget=10, explores=10, repeats=0))
        """
        number = min(_MOST_REPEATS, budget // _SHARE_OF_REPEATS) if repeats and budget >= _FEWEST_FOR_REPEATS else 0
        return cls(budget, budget - number, number)


@dataclass
class Runner:
    """Evaluates what a search asks for.

    Attributes:
        search: asks and is told.
        evaluate: what workers hold.
        workers: where it runs.
        deterministic: whether the result must not depend on the number of workers.
        batched: candidates per pass of an objective that can score several at once; 0: one by one.
        bar: progress.
        write: called with what is worth keeping.
        known: values that an earlier process had, by job.
        repeated: values of candidates by index, repetition 0 first.
        seen_again: the repetitions that were made, each as index and number, those that were lost among them.
        num_evaluations: calls of the objective that counted towards the budget.
        died: workers that died.
    """

    search: Search
    evaluate: Evaluate
    workers: Workers
    deterministic: bool
    batched: int
    bar: Bar
    write: Callable[[Event], None]
    known: dict[str, tuple[float | None, str]] = field(default_factory=dict)
    repeated: dict[int, list[float]] = field(default_factory=dict)
    seen_again: set[tuple[int, int]] = field(default_factory=set)
    num_evaluations: int = 0
    died: int = 0
    last_error: Exception | None = None

    def explore(self, plan: Plan) -> None:
        """Ask for candidates and tell their losses until that part of the budget is spent.

        Whether the objective is noisy shows when the untouched start is seen a second time; if that is lost both times,
        when the best of the others is. If it isn't, what was set aside for repetitions goes to more candidates.
        """
        left = self.search.outstanding
        self.num_evaluations = len(self.search.evaluations) - len(left)
        if not self.num_evaluations:
            self._evaluate_all(left or self.search.ask())
            left = []
        if plan.repeats:
            is_noisy = self._differs(UNTOUCHED, plan)
            own = 0 if self._is_lost(UNTOUCHED) else 1  # it has one repetition behind it and gets another
            if not is_noisy and self._is_lost(UNTOUCHED):
                self._explore(left, plan.explores)
                left = []
                # Of those that were asked for by now, whatever else an earlier process had.
                told = self._told(plan.explores)
                is_noisy = bool(told) and self._differs(told[0].index, plan)
                own = -1  # of a leader's repetitions one was made
            used = min(plan.repeats, own + (_REPETITIONS - 1) * _num_leaders(plan)) if is_noisy else 0
            plan.explores, plan.repeats = plan.explores + plan.repeats - used, used
        self._explore(left, plan.explores)

    def see_leaders_again(self, plan: Plan) -> None:
        """Spend the rest of the budget on repetitions of the untouched start and of the candidates that lead."""
        leaders = [leader.index for leader in self._told() if leader.index != UNTOUCHED]
        starts = leaders if self._is_lost(UNTOUCHED) else [UNTOUCHED, *leaders]
        wanted = [(index, r) for index in starts for r in range(1, _REPETITIONS)]
        self._again([pair for pair in wanted if pair not in self.seen_again][: plan.repeats])

    @property
    def is_noisy(self) -> bool:
        """Whether any candidate had another value when it was seen again."""
        return any(len(set(values)) > 1 for values in self.repeated.values())

    def values(self, jobs: Sequence[Job]) -> list[float | None]:
        """Return what the jobs evaluate to, in their order; None where one was lost. They do not count as budget."""
        found = {key: self.known[key] for key in map(_key, jobs) if key in self.known}
        missing = [(number, job) for number, job in enumerate(jobs) if _key(job) not in found]
        for outcome in run_all(self.workers, missing):
            value, _ = self._read(outcome)
            found[_key(jobs[outcome.key])] = value, ""
            self.write({"job": _key(jobs[outcome.key]), "value": value})
            self.bar.advance()
        return [found[_key(job)][0] for job in jobs]

    def _again(self, wanted: Sequence[tuple[int, int]]) -> list[float | None]:
        evaluations = self.search.evaluations
        values = self.values([Job(point=evaluations[index].point, repetition=r) for index, r in wanted])
        self.num_evaluations += len(wanted)
        self.seen_again.update(wanted)
        for (index, _), value in zip(wanted, values, strict=True):
            first = evaluations[index].loss
            if value is not None and first is not None:
                self.repeated.setdefault(index, [first]).append(value)
        return values

    def _differs(self, index: int, plan: Plan) -> bool:
        (again,) = self._again([(index, 1)])
        plan.repeats -= 1
        return again != self.search.evaluations[index].loss

    def _is_lost(self, index: int) -> bool:
        return self.search.evaluations[index].loss is None

    def _told(self, number: int | None = None) -> list[Evaluation]:
        """Return what has a loss among the first `number` candidates, the best first."""
        told = [e for e in self.search.evaluations[:number] if e.loss is not None]
        return sorted(told, key=lambda e: e.loss if e.loss is not None else 0.0)

    def _explore(self, left: Sequence[Candidate], total: int) -> None:
        if self.batched or self.deterministic:
            self._by_generation(left, total)
        else:
            self._as_workers_are_free(left, total)

    def _as_workers_are_free(self, left: Sequence[Candidate], total: int) -> None:
        search = self.search

        def jobs() -> Iterator[tuple[int, Job]]:
            for candidate in left:
                yield candidate.index, Job(point=candidate.point)
            while len(search.evaluations) < total:
                (candidate,) = search.ask()
                yield candidate.index, Job(point=candidate.point)

        for outcome in run_all(self.workers, jobs()):
            self._tell(outcome.key, *self._read(outcome))

    def _by_generation(self, left: Sequence[Candidate], total: int) -> None:
        algorithm = self.search.algorithm
        size = self.batched or algorithm.population or generation_size(algorithm.name, deterministic=True, workers=1)
        while True:
            missing = min(size - len(left), total - len(self.search.evaluations))
            generation = [*left, *(self.search.ask(missing) if missing > 0 else ())]
            if not generation:
                return
            self._evaluate_all(generation)
            left = []

    def _evaluate_all(self, candidates: Sequence[Candidate]) -> None:
        keys = {c.index: f"candidate {c.index}" for c in candidates}
        values = {index: self.known[key] for index, key in keys.items() if key in self.known}
        missing = [c for c in candidates if c.index not in values]
        if self.batched and len(candidates) > 1:
            losses = self.evaluate.batch([c.point for c in missing]) if missing else []
            values |= {c.index: checked_loss(loss) for c, loss in zip(missing, losses, strict=True)}
        else:
            for outcome in run_all(self.workers, ((c.index, Job(point=c.point)) for c in missing)):
                values[outcome.key] = value, lost = self._read(outcome)
                self.write({"job": keys[outcome.key], "value": value, "lost": lost})
        # In the order in which they were asked for, whoever was first.
        with self.search.algorithm.own_generators():
            for candidate in candidates:
                self._tell(candidate.index, *values[candidate.index])

    def _tell(self, index: int, value: float | None, lost: str) -> None:
        self.search.tell(index, value, lost=lost)
        self.num_evaluations += 1
        if self.bar.is_shown:
            best = self.search.best
            self.bar.advance("" if best is None else f"best {best.loss:.4g}")

    def _read(self, outcome: Any) -> tuple[float | None, str]:
        if outcome.error is None:
            return checked_loss(outcome.value)
        self.died += outcome.worker_died
        self.last_error = outcome.error
        return None, f"{type(outcome.error).__name__}: {outcome.error}"


def generation_size(algorithm: str, *, deterministic: bool, workers: int) -> int:
    """Return how many candidates are under way before one is told.

    >>> generation_size("PSO", deterministic=True, workers=1), generation_size("PSO", deterministic=False, workers=3)
    (8, 3)
    >>> generation_size("NelderMead", deterministic=True, workers=1)
    1
    """
    if not deterministic or (workers == 1 and is_sequential(algorithm)):
        return workers
    return _GENERATION


def _num_leaders(plan: Plan) -> int:
    # The untouched start has one repetition behind it and gets another.
    return max(1, (plan.repeats - 1) // (_REPETITIONS - 1))


def _key(job: Job) -> str:
    place = f"draw {job.draw}" if job.draw is not None else f"point {json.dumps(job.point, sort_keys=True)}"
    return f"{'validate' if job.validates else 'objective'} {place} repetition {job.repetition}"


def known_values(events: Sequence[Event]) -> dict[str, tuple[float | None, str]]:
    """Return the values that a journal holds, by job."""
    return {event["job"]: (event["value"], event.get("lost", "")) for event in events if "job" in event}
