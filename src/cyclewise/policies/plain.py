"""Settings as plain JSON values, and back."""

from collections.abc import Callable, Mapping
from typing import Any

from cyclewise.errors import PolicyError
from cyclewise.policies import identity

# A dict whose keys JSON would turn into text, as its items.
_ITEMS = "items of a dict"
# What JSON does not hold (a function, a member of an enum) as text, which tells whether it is the same.
_TEXT = "text of an object"


def plain(value: Any) -> Any:
    """Return a setting as plain JSON values; policies in it by their own ``to_dict``.

    >>> plain({"table": {0: 0.5}, "steps": (1, 2), "scale": abs})
    {'table': {'items of a dict': [[0, 0.5]]}, 'steps': [1, 2], 'scale': {'text of an object': 'builtins.abs'}}
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: plain(item) for key, item in value.items()}
        return {_ITEMS: [[plain(key), plain(item)] for key, item in value.items()]}
    if isinstance(value, float):
        return float(value)
    if value is None or isinstance(value, (int, str)):
        return value
    return value.tolist() if hasattr(value, "tolist") else {_TEXT: identity.text(value)}  # arrays and their scalars


def revived(value: Any, make_policy: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return the setting that :func:`plain` turned into JSON values; lists come back as tuples.

    Raises:
        PolicyError: it is of a kind that JSON does not hold.
    """
    if isinstance(value, list):
        return tuple(revived(item, make_policy) for item in value)
    if not isinstance(value, Mapping):
        return value
    if "policy" in value:
        return make_policy(value)
    if set(value) == {_ITEMS}:
        return {revived(key, make_policy): revived(item, make_policy) for key, item in value[_ITEMS]}
    if set(value) == {_TEXT}:
        raise PolicyError(
            f"values must be ones that JSON holds, got {value[_TEXT]}, of which only the text was kept; "
            "make the policy by hand, or give its class a to_dict of its own"
        )
    return {key: revived(item, make_policy) for key, item in value.items()}
