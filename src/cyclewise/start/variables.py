"""What a space varies, apart from how it is searched: coordinates, choices, and draws.

A point gives each variable a plain JSON value under its name: a tuple of coordinates in [-1, 1], the name of an option,
or a seed. So points are stored, compared and sent to workers without the library that searches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cyclewise.errors import ArgumentError

Value = tuple[float, ...] | str | int | None
Point = Mapping[str, Value]


@dataclass(frozen=True)
class Coordinates:
    """`size` real numbers, each in [-1, 1]; `centre` is the untouched start, for all or for each of them."""

    name: str
    size: int
    centre: float = 0.0

    @property
    def untouched(self) -> Value:
        """The value that changes nothing."""
        return (self.centre,) * self.size


@dataclass(frozen=True)
class Choice:
    """One of some named options; the first changes nothing."""

    name: str
    options: tuple[str, ...]

    @property
    def untouched(self) -> Value:
        """The option that changes nothing."""
        return self.options[0]


@dataclass(frozen=True)
class Draw:
    """A seed. Two seeds have nothing in common, so only random search makes sense; None changes nothing."""

    name: str

    @property
    def untouched(self) -> Value:
        """The value that changes nothing."""
        return None


Variable = Coordinates | Choice | Draw


def untouched(variables: tuple[Variable, ...]) -> dict[str, Value]:
    """Return the point that changes nothing.

    >>> untouched((Coordinates("gains", 2), Choice("scheme", ("as it is", "he"))))
    {'gains': (0.0, 0.0), 'scheme': 'as it is'}
    """
    return {variable.name: variable.untouched for variable in variables}


def check_point(point: Point, variables: tuple[Variable, ...]) -> None:
    """Raise :class:`ArgumentError` unless `point` gives each of `variables` a value that it may have."""
    names = [variable.name for variable in variables]
    if sorted(point) != sorted(names):
        raise ArgumentError(f"point must give a value to each of {names}, got {sorted(point)}; see space.variables")
    for variable in variables:
        value = point[variable.name]
        if isinstance(variable, Coordinates) and not (
            isinstance(value, (tuple, list)) and len(value) == variable.size and all(-1 <= v <= 1 for v in value)
        ):
            raise ArgumentError(
                f"point[{variable.name!r}] must be {variable.size} numbers in [-1, 1], got {value!r}; "
                "0 is the untouched start, -1 and 1 are the ends of the range"
            )
        if isinstance(variable, Choice) and value not in variable.options:
            raise ArgumentError(
                f"point[{variable.name!r}] must be one of {variable.options}, got {value!r}; pass one of these names"
            )


def position(point: Point, variables: tuple[Variable, ...]) -> list[float]:
    """Return where `point` lies, as numbers: coordinates as they are, a choice as one of evenly spread places.

    >>> position({"gains": (0.5,), "scheme": "he"}, (Coordinates("gains", 1), Choice("scheme", ("as it is", "he"))))
    [0.5, 1.0]
    """
    numbers: list[float] = []
    for variable in variables:
        value = point[variable.name]
        if isinstance(variable, Coordinates) and isinstance(value, (tuple, list)):
            numbers.extend(value)
        elif isinstance(variable, Choice):
            numbers.append(2 * variable.options.index(str(value)) / max(1, len(variable.options) - 1) - 1)
    return numbers
