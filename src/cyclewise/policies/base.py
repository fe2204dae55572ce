"""What a policy is: frozen settings, and a pure function from the step to the hyperparameters.

A step is one optimizer update, counted from 0. A policy of n steps takes its first value at step 0 and its last at step
n - 1, and holds the last one after that. Values are computed from the step itself, never accumulated, so any step can
be asked for at any time, in any order.
"""

import dataclasses
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Mapping
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cyclewise._validation import describe
from cyclewise.drawing import Chart, Line, Section
from cyclewise.errors import PolicyError
from cyclewise.policies import checks, identity
from cyclewise.policies.arithmetic import ARRAY, SCALAR, Arithmetic
from cyclewise.policies.plain import plain, revived
from cyclewise.policies.steps import Steps, as_step, as_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cyclewise.policies.extended import Extended

_VERSION = 1
# A drawing shows no more than this many steps of a long policy.
_MOST_DRAWN = 4001
# A policy is asked for so many steps at once, so that a long one needs no more memory; and for no more in all.
_STEPS_AT_ONCE = 2**20
_MOST_LOOKED_AT = 2**24
# Of a longer one, so many steps at either end, and about so many ends of cycles.
_MOST_JOINTS = 4096

_FLOAT_OR_NONE = (float, type(None))

Floats = NDArray[np.float64]
AnyPolicy = TypeVar("AnyPolicy", bound="type[Policy]")

_registry: dict[str, "type[Policy]"] = {}


class Hyperparameters(NamedTuple):
    """What a policy says for a step; arrays where it was asked for several.

    Attributes:
        lr: learning rate.
        momentum: momentum, or Adam's beta1; None where the policy does not move it.
        weight_decay: weight decay; None where the policy does not move it.
    """

    lr: Any
    momentum: Any = None
    weight_decay: Any = None


class _Kind(ABCMeta):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        policy = super().__call__(*args, **kwargs)
        identity.remember(policy)
        return policy


class Policy(metaclass=_Kind):
    """A schedule as a value: override :meth:`value` and give it `total_steps`; everything else comes from that.

    Subclasses are best frozen dataclasses. A plain class compares and prints by its attributes, those of cached
    properties left out, or by its own `to_dict`; change none after it is made, except private ones that cache, which
    count as they were after `__init__`. To load one from JSON, register it with :func:`register_policy`.

    Attributes:
        total_steps: length in steps, at least 1.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Staircase(Policy):
        ...     total_steps: int
        ...     def value(self, step):
        ...         return 0.1 / 2 ** (step // 10)
        >>> policy = Staircase(total_steps=30)
        >>> policy.lr(9), policy.lr([0, 10, 29, 1000])
        (0.1, array([0.1  , 0.05 , 0.025, 0.025]))
        >>> policy.extend(total_steps=50, at_step=20).total_steps
        50
    """

    total_steps: int

    @abstractmethod
    def value(self, step: int) -> "float | Hyperparameters":
        """Return the learning rate, or all hyperparameters, at one step with ``0 <= step < total_steps``."""

    def at(self, step: int) -> Hyperparameters:
        """Return the hyperparameters at one step of at least 0; from `total_steps` on, those of the last step."""
        value = self.value(step if step < self.total_steps else self.total_steps - 1)
        if type(value) is not Hyperparameters:
            return Hyperparameters(float(value))  # type: ignore[arg-type]
        if type(value[0]) is float and type(value[1]) in _FLOAT_OR_NONE and type(value[2]) in _FLOAT_OR_NONE:
            return value
        return Hyperparameters(*(None if part is None else float(part) for part in value))

    def values(self, steps: Steps) -> Hyperparameters:
        """Return the hyperparameters at several steps, each a float64 array of the shape of `steps` or None.

        Raises:
            PolicyError: a step is not a whole number of at least 0, or the policy has more than 2**53 steps.
        """
        array = as_steps(steps)
        return self._values(np.minimum(array, checks.total_steps(self.total_steps) - 1))

    @overload
    def lr(self, step: int) -> float: ...
    @overload
    def lr(self, step: Steps) -> Floats: ...
    def lr(self, step: int | Steps) -> float | Floats:
        """Return the learning rate: a float for one step, a float64 array for several, the same bits either way.

        Raises:
            PolicyError: a step is not a whole number of at least 0.
        """
        return self._one(step, 0)  # type: ignore[no-any-return]

    @overload
    def momentum(self, step: int) -> float | None: ...
    @overload
    def momentum(self, step: Steps) -> Floats | None: ...
    def momentum(self, step: int | Steps) -> float | Floats | None:
        """Return the momentum (Adam's beta1) as :meth:`lr` does; None where the policy does not move it."""
        return self._one(step, 1)  # type: ignore[no-any-return]

    @overload
    def weight_decay(self, step: int) -> float | None: ...
    @overload
    def weight_decay(self, step: Steps) -> Floats | None: ...
    def weight_decay(self, step: int | Steps) -> float | Floats | None:
        """Return the weight decay as :meth:`lr` does; None where the policy does not move it."""
        return self._one(step, 2)  # type: ignore[no-any-return]

    @property
    def cycle_ends(self) -> list[int]:
        """The step after each cycle, rising; the last one is `total_steps`."""
        return [self.total_steps]

    @property
    def peak_step(self) -> int:
        """The first step with the highest learning rate; of more than 2**24 steps, among some of them."""
        return highest(self)[0]

    def extend(self, *, total_steps: int, at_step: int) -> "Extended":
        """Return a policy that goes on from here for a new number of steps, continuous at the joint.

        Args:
            total_steps: the new length, counted from step 0.
            at_step: the step from which on things change: earlier ones keep their values, this one too, and from here
                the rest of this policy is stretched (or squeezed) to end where it would have ended.

        Raises:
            PolicyError: `total_steps` does not lie beyond `at_step`.
        """
        from cyclewise.policies.extended import Extended

        return Extended(original=self, total_steps=total_steps, at_step=at_step)

    def in_epochs(self, steps_per_epoch: int) -> "Policy":
        """Return this policy with all that it counts in steps read as epochs.

        Write a policy in epochs, then turn it into steps: ``OneCycle(max_lr=0.1, total_steps=95).in_epochs(391)`` has
        95 * 391 steps. Lengths, step sizes, milestones and joints are multiplied; the `gamma` of a :class:`Cyclical` is
        read as the factor per epoch. A policy of your own must be a dataclass; of its fields those are multiplied whose
        names are used here: ``total_steps``, ``warmup_steps`` and so on.

        Args:
            steps_per_epoch: optimizer updates per pass over the data, at least 1.

        Raises:
            PolicyError: `steps_per_epoch` is not a whole number of at least 1.
        """
        from cyclewise.policies.epochs import in_steps

        return in_steps(self, steps_per_epoch)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Policy)
        return self is other or identity.same(self._settings(), other._settings())

    def __hash__(self) -> int:
        # Whatever the attributes are: lists and arrays among them have no hash.
        return hash(type(self))

    @recursive_repr()
    def __repr__(self) -> str:
        return identity.call(self, self._settings())

    def _settings(self) -> dict[str, Any]:
        if type(self).to_dict is not Policy.to_dict:
            return {name: value for name, value in self.to_dict().items() if name not in ("policy", "version")}
        return identity.settings(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which :func:`policy_from_dict` makes an equal policy."""
        return {"policy": type(self).__name__, "version": _VERSION, **{k: plain(v) for k, v in _fields(self).items()}}

    def charts(self) -> list[Chart]:
        """Describe the pictures of the rate over the steps, and of the momentum and weight decay where they move."""
        steps = _spread(self.total_steps, _MOST_DRAWN)
        values = self.values(steps)
        names = ("learning rate", "momentum", "weight decay")
        return [
            Chart(name.capitalize(), "step (optimizer updates)", name, [Line(name, steps.tolist(), part.tolist())])
            for name, part in zip(names, values, strict=True)
            if part is not None
        ]

    def section(self) -> Section:
        """Return this policy's part of a report."""
        return Section(title=type(self).__name__, conclusion=f"{self.total_steps} steps.", charts=self.charts(),
                       settings={"policy": repr(self)})  # fmt: skip

    def plot(self) -> "Figure":
        """Draw the policy over its steps, as a matplotlib figure."""
        from cyclewise.drawing.figure import draw

        return draw(self.charts())

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        rows = [self.at(step) for step in steps.ravel().tolist()]
        return Hyperparameters(
            *(
                None
                if any(part is None for part in column)
                else np.array(column, dtype=np.float64).reshape(steps.shape)
                for column in (zip(*rows, strict=True) if rows else ((), None, None))
                if column is not None
            )
        )

    def _one(self, step: int | Steps, which: int) -> Any:
        index = as_step(step)
        return self.values(step)[which] if index is None else self.at(index)[which]  # type: ignore[arg-type]


class FormulaPolicy(Policy):
    """A policy whose one formula serves single steps and arrays."""

    @abstractmethod
    def formula(self, step: Any, arithmetic: Arithmetic) -> Hyperparameters:
        """Return the hyperparameters at steps within the policy's length."""

    def value(self, step: int) -> Hyperparameters:
        """Return the hyperparameters at one step."""
        return self.formula(step, SCALAR)

    def _values(self, steps: NDArray[np.int64]) -> Hyperparameters:
        return self.formula(steps, ARRAY)


def require_policy(name: str, value: Any) -> None:
    """Raise :class:`PolicyError` unless the argument of this name is a policy."""
    if not isinstance(value, Policy):
        raise PolicyError(f"{name} must be a policy, got {describe(value)}; make it a Constant")


def register_policy(policy_class: AnyPolicy) -> AnyPolicy:
    """Let :func:`policy_from_dict` make policies of this class; use it as a decorator.

    The class is made anew from keyword arguments: the fields of a dataclass, or else its public attributes.

    Raises:
        PolicyError: the name belongs to another class, or a field is called "policy" or "version".
    """
    name = policy_class.__name__
    reserved = {"policy", "version"} & set(getattr(policy_class, "__dataclass_fields__", ()))
    if reserved:
        raise PolicyError(
            f"policy_class must not have fields named 'policy' or 'version', got {name} with {sorted(reserved)}; "
            "to_dict() needs these names: rename the fields"
        )
    taken = _registry.setdefault(name, policy_class)
    # A class defined again under the same full name (a reloaded notebook cell) replaces its former self.
    if (taken.__module__, taken.__qualname__) != (policy_class.__module__, policy_class.__qualname__):
        raise PolicyError(f"policy_class must have a name of its own, got {name!r}, which is taken; rename the class")
    _registry[name] = policy_class
    return policy_class


def registered_policies() -> list[type[Policy]]:
    """Return the registered classes, in the order in which they were registered."""
    return list(_registry.values())


def policy_from_dict(values: Mapping[str, Any]) -> Policy:
    """Return the policy that ``to_dict`` described.

    Raises:
        PolicyError: the values describe no policy that is known here.

    Example:
        >>> from cyclewise import Constant
        >>> policy_from_dict(Constant(lr=0.1, total_steps=5).to_dict())
        Constant(lr=0.1, total_steps=5)
    """
    if not isinstance(values, Mapping) or "policy" not in values:
        raise PolicyError(f"values must be a dict with the key 'policy', got {values!r}; pass what to_dict() returned")
    name, version = values["policy"], values.get("version")
    if version != _VERSION:
        raise PolicyError(
            f"values must have version {_VERSION}, got {version!r}; they were written by another release of cyclewise"
        )
    if not isinstance(name, str) or name not in _registry:
        raise PolicyError(
            f"values must describe a registered policy, got {name!r}; "
            "decorate your class with cyclewise.register_policy, and import it before loading"
        )
    arguments = {
        key: revived(value, policy_from_dict) for key, value in values.items() if key not in ("policy", "version")
    }
    try:
        return _registry[name](**arguments)
    except TypeError as error:
        raise PolicyError(
            f"values must have exactly the fields of {name}, got {sorted(map(str, arguments))}; "
            "pass what to_dict() returned"
        ) from error


def highest(policy: Policy) -> tuple[int, float]:
    """Return the first step with the highest rate, and that rate.

    Of a policy of more than 2**24 steps only some are looked at: the first and last thousands, those about the ends of
    its cycles, and a million spread over it.
    """
    best = (0, -math.inf)
    for steps in _stretches(policy):
        rates = policy.lr(steps)
        first = int(np.argmax(rates))
        if rates[first] > best[1]:
            best = (int(steps[first]), float(rates[first]))
    return best


def _stretches(policy: Policy) -> Iterator[NDArray[np.int64]]:
    total_steps = policy.total_steps
    if total_steps > _MOST_LOOKED_AT:
        joints = _joints(policy)
        near = [joints + offset for offset in range(-2, 3)]
        ends = [np.arange(_MOST_JOINTS), np.arange(total_steps - _MOST_JOINTS, total_steps)]
        steps = np.unique(np.concatenate([*ends, *near, _spread(total_steps, _STEPS_AT_ONCE)]))
        yield steps[(steps >= 0) & (steps < total_steps)]
        return
    for first in range(0, total_steps, _STEPS_AT_ONCE):
        yield np.arange(first, min(first + _STEPS_AT_ONCE, total_steps))


def _joints(policy: Policy) -> NDArray[np.int64]:
    try:
        ends = policy.cycle_ends
    except PolicyError:  # too many to list
        ends = []
    return np.array(ends[:: max(1, len(ends) // _MOST_JOINTS)], dtype=np.int64)


def _spread(total_steps: int, most: int) -> NDArray[np.int64]:
    """Return the steps of a policy, the first and the last among them; of a long one no more than `most`."""
    steps: NDArray[np.int64] = np.linspace(0, total_steps - 1, min(total_steps, most)).round().astype(np.int64)
    return steps[np.diff(steps, prepend=-1) > 0]


def _fields(policy: Policy) -> dict[str, Any]:
    fields: dict[str, dataclasses.Field[Any]] | None = getattr(policy, "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(policy, name) for name, field in fields.items() if field.init}
    return {name: value for name, value in identity.attributes(policy).items() if not name.startswith("_")}
