"""The numbers of a diagnosis: small frozen records of plain floats, that go to JSON and come back equal."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue of the Hessian.

    Attributes:
        value: the eigenvalue.
        residual: norm of H v - value * v for the unit vector v found: an eigenvalue lies within it around the value.
    """

    value: float
    residual: float


@dataclass(frozen=True)
class Estimate:
    """A number with the standard error of its random draws; 0 where it is exact."""

    value: float
    std_error: float


@dataclass(frozen=True)
class Profile:
    """The loss along a line through the present point.

    Attributes:
        name: which line.
        distances: how far along it, in the norm of the parameters; 0 is the present point, negative lies behind it.
        losses: the loss there; not finite where it overflows.
    """

    name: str
    distances: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Signal:
    """The gradient against its own noise.

    Attributes:
        squared_norm: |G|^2 of the gradient without noise, unbiased; noise may make it negative.
        std_error: of `squared_norm`; None where it is not known.
        variance: tr S: the squared noise of the gradient of one sample.
        noise_norm: length that the noise alone gives the gradient of the mean loss.
        batch_size: samples in one batch, on average.
        num_samples: in all batches.
        lowest_scale: the noise scale is at least this, by two standard errors; None where it is not known.
        highest_scale: and at most this; None where the gradient may as well be zero.
    """

    squared_norm: float
    std_error: float | None
    variance: float
    noise_norm: float
    batch_size: float
    num_samples: int
    lowest_scale: float | None = None
    highest_scale: float | None = None


@dataclass(frozen=True)
class Inputs:
    """What the first layers are fed with: the mean square of each of their input features.

    Attributes:
        name: of the layer.
        largest: largest mean square of a feature.
        median: median mean square over the features.
        offset: share of the mean square that is the feature's mean, of the feature with the largest.
    """

    name: str
    largest: float
    median: float
    offset: float


@dataclass(frozen=True)
class Slice:
    """The loss on a plane through the present point.

    Attributes:
        x_name, y_name: the directions, both of norm 1 and at right angles.
        x, y: distances along them, in the norm of the parameters.
        losses: rows of y, columns of x.
        path: points (x, y) of the training path as they are seen in the plane: from its start to the present; the two
            ends only where nothing in between was given.
        path_share: share of the squared distances of the path's points from here that the plane shows; None without a
            path.
    """

    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    path: tuple[tuple[float, float], ...] = ()
    path_share: float | None = None


def as_json(value: Any) -> Any:
    """Return a record, or a container, as plain JSON values; not finite becomes None, of an enum the member's name.

    >>> as_json(Profile("gradient", (0.0, 1.0), (2.0, math.inf)))
    {'name': 'gradient', 'distances': [0.0, 1.0], 'losses': [2.0, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_json(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def from_json(record: type[Record], values: Mapping[str, Any]) -> Record:
    """Return the record that :func:`as_json` described; a number that was not finite is NaN.

    >>> from_json(Profile, {"name": "gradient", "distances": [0.0, 1.0], "losses": [2.0, None]})
    Profile(name='gradient', distances=(0.0, 1.0), losses=(2.0, nan))
    """
    kinds = {field.name: field.type for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    return record(
        **{
            name: math.nan if value is None and kinds[name] is float else _tuples(value)
            for name, value in values.items()
        }
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(math.nan if item is None else _tuples(item) for item in value)
    return value
