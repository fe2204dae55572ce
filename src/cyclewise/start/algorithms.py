"""Nevergrad's optimizers by name, over the variables of a space.

Each coordinate in [-1, 1] is searched as a number x with ``coordinate = 2 Phi(x) - 1``, Phi the distribution function
of the standard normal. So what Nevergrad draws by default, standard normal numbers, fills the range evenly, whatever
the algorithm, and no algorithm needs bounds.
"""

import difflib
import math
import random
import re
import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cyclewise._validation import describe, real, whole
from cyclewise.errors import ArgumentError, ArgumentTypeError, MissingExtraError
from cyclewise.start.variables import Choice, Coordinates, Draw, Point, Value, Variable
from cyclewise.state import preserve

_NORMAL = statistics.NormalDist()
_LARGEST = 1 - 1e-12
_FEWEST_GENERATIONS = 6
_SWARM = 40  # Nevergrad's, whatever the budget
_SMALLEST_SWARM = 4
_RANDOM = "RandomSearch"
# With it the swarm's unit box is the space itself. Nevergrad's "arctan" finds starts as good, "identity" slightly worse
# ones; what matters is the number of particles (benchmarks/start_search/settings.py).
_TRANSFORM = "gaussian"


class Algorithm:
    """An optimizer of Nevergrad that asks for points and is told losses.

    Args:
        variables: what varies.
        name: as registered with Nevergrad.
        budget: how many points it will be asked for.
        num_workers: how many may be asked for before one is told.
        seed: of its random numbers.
        population: particles of the swarm; None: 40, and fewer where that would leave fewer than six generations.
        omega, phip, phig: the swarm's inertia and its pulls towards a particle's own best and the swarm's best; None:
            Nevergrad's (0.72, 1.19, 1.19).

    Attributes:
        name: the registered name.
        population: particles of the swarm; None for other algorithms.
        note: what was set otherwise than Nevergrad does, and why; empty where nothing was.

    Raises:
        ArgumentError: there is no such algorithm, or an argument does not suit it.
        MissingExtraError: Nevergrad is not installed.
    """

    def __init__(
        self,
        variables: tuple[Variable, ...],
        name: str,
        *,
        budget: int,
        num_workers: int = 1,
        seed: int = 0,
        population: int | None = None,
        omega: float | None = None,
        phip: float | None = None,
        phig: float | None = None,
    ) -> None:
        self._variables = variables
        self.name = check_algorithm(name, variables)
        self.population: int | None = None
        self.note = ""
        pulls = {"omega": omega, "phip": phip, "phig": phig}
        given = {key: real(key, value, way_out="pass a number") for key, value in pulls.items() if value is not None}
        if self.name != "PSO" and (given or population is not None):
            names = ", ".join([*(["population"] if population is not None else []), *given])
            raise ArgumentError(f'{names} must be left out for algorithm={self.name!r}; they are those of "PSO"')
        if self.name == "PSO":
            self.population, self.note = swarm_size(population, budget)
        self._state = np.random.RandomState(seed % 2**32).get_state()
        self._python_state = random.Random(seed).getstate()
        self._draws = np.random.default_rng(seed)
        self._is_swapped = False
        self._losses: list[float] = []
        with self.own_generators():
            self._optimizer = self._make(budget, num_workers, seed, given)

    def ask(self) -> tuple[Any, dict[str, Value]]:
        """Return a handle to tell the loss with, and a point."""
        with self.own_generators():
            handle = None if self._optimizer is None else self._optimizer.ask()
        values = {} if handle is None else self._by_name(handle.value)
        point: dict[str, Value] = {}
        for variable in self._variables:
            if isinstance(variable, Coordinates):
                point[variable.name] = tuple(_coordinate(float(x)) for x in values[variable.name])
            elif isinstance(variable, Choice):
                point[variable.name] = str(values[variable.name])
            else:
                point[variable.name] = int(self._draws.integers(2**31))
        return handle, point

    def tell(self, handle: Any, loss: float | None) -> None:
        """Tell the loss at a point; None for a candidate that was lost, which counts as worse than any other."""
        if loss is not None:
            self._losses.append(loss)
        if handle is None or self._optimizer is None:
            return
        with self.own_generators():
            self._optimizer.tell(handle, self._worse() if loss is None else loss)

    def tell_of(self, point: Point, loss: float | None) -> None:
        """Tell the loss at a point that was not asked for; an algorithm that cannot use it goes on without."""
        if self._optimizer is None or loss is None or any(isinstance(v, Draw) for v in self._variables):
            return
        from nevergrad.common.errors import TellNotAskedNotSupportedError

        self._losses.append(loss)
        values: dict[str, Any] = {}
        for variable in self._variables:
            value = point[variable.name]
            if isinstance(variable, Coordinates) and isinstance(value, (tuple, list)):
                values[variable.name] = np.array([_number(z) for z in value])
            else:
                values[variable.name] = value
        with self.own_generators():
            new_value: Any = next(iter(values.values())) if self._is_bare else values
            try:
                self._optimizer.tell(self._optimizer.parametrization.spawn_child(new_value=new_value), loss)
            except (TellNotAskedNotSupportedError, NotImplementedError):
                pass

    def _make(self, budget: int, num_workers: int, seed: int, given: dict[str, float]) -> Any:
        import nevergrad as ng

        parts: dict[str, Any] = {}
        for variable in self._variables:
            if isinstance(variable, Coordinates):
                parts[variable.name] = ng.p.Array(init=np.zeros(variable.size))
            elif isinstance(variable, Choice):
                parts[variable.name] = ng.p.Choice(variable.options, deterministic=True)
        if not parts:
            return None
        # One array on its own spares Nevergrad's dictionaries, which cost more than the algorithm.
        self._is_bare = len(parts) == 1
        parametrization = next(iter(parts.values())) if self._is_bare else ng.p.Dict(**parts)
        parametrization.random_state = np.random.RandomState(seed % 2**32)
        kind = ng.optimizers.registry[self.name]
        if self.name == "PSO":
            kind = ng.optimizers.ConfPSO(transform=_TRANSFORM, popsize=self.population, **given)
        if num_workers > 1 and is_sequential(self.name):
            raise ArgumentError(
                f"workers must be 1 for algorithm={self.name!r}, which asks for one point at a time, "
                f'got {num_workers}; pass workers=1, or an algorithm such as "PSO" or "TwoPointsDE"'
            )
        return kind(parametrization, budget=budget, num_workers=num_workers)

    def _by_name(self, value: Any) -> dict[str, Any]:
        if not self._is_bare:
            return dict(value)
        return {v.name: value for v in self._variables if not isinstance(v, Draw)}

    def _worse(self) -> float:
        worst = max(self._losses, default=0.0)
        return worst + max(1.0, abs(worst))

    @contextmanager
    def own_generators(self) -> Iterator[None]:
        """Let the algorithm draw from a stream of its own while the block runs; blocks may be nested.

        Some algorithms draw from the global generators. So what a search asks for depends on its seed alone and not on
        where candidates are evaluated. Swapping costs more than asking: a block around many asks or tells spares it.
        """
        if self._is_swapped:
            yield
            return
        self._is_swapped = True
        numpy_state, python_state = np.random.get_state(), random.getstate()
        np.random.set_state(self._state)
        random.setstate(self._python_state)
        try:
            with warnings.catch_warnings(), _one_element_is_a_number():
                warnings.simplefilter("ignore")  # Nevergrad's advice on budgets; ours is in `note`
                yield
        except Exception as error:
            package = _missing_package(error)
            if package is None:
                raise
            raise MissingExtraError(
                f"algorithm={self.name!r} needs {package}, which is not installed; run: pip install {package}, "
                'or pass another algorithm, for example "PSO"'
            ) from error
        finally:
            self._is_swapped = False
            self._state, self._python_state = np.random.get_state(), random.getstate()
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def swarm_size(population: int | None, budget: int) -> tuple[int, str]:
    """Return the number of particles, and a note where it is not Nevergrad's.

    Raises:
        ArgumentError: there would be more particles than evaluations.

    >>> swarm_size(None, 60)
    (10, 'population 10 instead of 40: 60 evaluations are fewer than six generations of 40')
    >>> swarm_size(None, 400), swarm_size(8, 400)
    ((40, ''), (8, ''))
    """
    if population is not None:
        asked = whole("population", population, minimum=2, way_out="pass the number of particles, for example 10")
        if asked > budget:
            raise ArgumentError(
                f"population must be at most budget={budget}, got {population!r}; "
                "each particle needs an evaluation: raise the budget, or leave population out"
            )
        return asked, ""
    if budget >= _FEWEST_GENERATIONS * _SWARM:
        return _SWARM, ""
    size = max(_SMALLEST_SWARM, budget // _FEWEST_GENERATIONS)
    return size, (
        f"population {size} instead of {_SWARM}: {budget} evaluations are fewer than six generations of {_SWARM}"
    )


def check_algorithm(name: Any, variables: tuple[Variable, ...]) -> str:
    """Return the registered name of an algorithm that suits the variables.

    Raises:
        ArgumentTypeError: `name` is no text.
        ArgumentError: there is no such algorithm, or a draw is to be searched by anything but random search.
        MissingExtraError: Nevergrad is not installed.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f'algorithm must be a name, got {describe(name)}; pass for example "PSO"')
    names = registered()
    if name not in names:
        lower = {known.lower(): known for known in names}
        near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else 'for example "PSO", "NGOpt" or "CMA"'
        raise ArgumentError(f"algorithm must be the name of a Nevergrad optimizer, got {name!r}; {hint}")
    if any(isinstance(variable, Draw) for variable in variables) and name != _RANDOM:
        raise ArgumentError(
            f'algorithm must be "{_RANDOM}" for a space of seeds, got {name!r}; '
            "neighbouring seeds have nothing in common that another algorithm could learn"
        )
    return name


def is_sequential(name: str) -> bool:
    """Return whether an algorithm asks for one point at a time.

    >>> is_sequential("NelderMead"), is_sequential("PSO")
    (True, False)
    """
    if name not in registered():
        return False  # what it is instead is said where the algorithm is made

    import nevergrad as ng

    return bool(getattr(ng.optimizers.registry[name], "no_parallelization", False))


def registered() -> list[str]:
    """Return the names of Nevergrad's optimizers.

    Raises:
        MissingExtraError: Nevergrad is not installed.
    """
    try:
        with preserve(), warnings.catch_warnings():  # its import draws random numbers
            warnings.simplefilter("ignore")
            import nevergrad as ng
    except ImportError:
        raise MissingExtraError.for_extra("start", "nevergrad") from None
    return sorted(ng.optimizers.registry)


@contextmanager
def _one_element_is_a_number() -> Iterator[None]:
    # Nevergrad's surrogate models, NGOpt's among them, call float() on arrays of one element, which NumPy 2.4 refuses.
    # Inside this block a name in that one module of Nevergrad hides the built-in.
    from nevergrad.optimization import metamodel

    metamodel.float = _float
    try:
        yield
    finally:
        del metamodel.float


def _float(value: Any) -> float:
    return float(value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value)


def _missing_package(error: BaseException) -> str | None:
    if isinstance(error, ImportError) and error.name:
        return error.name
    found = re.search(r"No module named '([\w.]+)'|pip install (\w+)", str(error))
    return found.group(1) or found.group(2) if found else None


def _coordinate(x: float) -> float:
    return math.erf(x / math.sqrt(2)) if math.isfinite(x) else math.copysign(1.0, x)


def _number(coordinate: float) -> float:
    return _NORMAL.inv_cdf((1 + min(_LARGEST, max(-_LARGEST, coordinate))) / 2)
