"""What the reference page of the site lists: every public name, by the part of the library that it belongs to."""

from collections.abc import Iterator

import cyclewise as cw

# In this order; the names of a part that is missing here come last, under the part's own name.
TITLES = {
    "range_test": "Finding a rate",
    "policies": "Policies",
    "scheduler": "Driving an optimizer",
    "velocity": "Driving an optimizer",
    "migration": "Driving an optimizer",
    "training": "Training",
    "landscape": "Diagnosis",
    "start": "A starting point",
    "comparison": "Comparing policies",
    "engines": "Workers",
    "report": "Reports",
    "state": "Leaving no trace",
    "errors": "Errors",
}


def names_by_title() -> dict[str, list[str]]:
    """Return all public names under the titles of the page, in its order: functions before classes."""
    parts = [*TITLES, *sorted(set(cw._HOMES.values()) - set(TITLES))]
    groups: dict[str, list[str]] = {}
    for part in parts:
        names = [name for name in cw.__all__ if cw._HOMES[name] == part]
        if names:
            names.sort(key=lambda name: isinstance(getattr(cw, name), type))
            groups.setdefault(TITLES.get(part, part.replace("_", " ").capitalize()), []).extend(names)
    return groups


def page() -> str:
    """Return the page as reStructuredText."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for title, names in names_by_title().items():
        yield from ("", title, "-" * len(title), "")
        for name in names:
            value = getattr(cw, name)
            if not isinstance(value, type):
                yield f".. autofunction:: cyclewise.{name}"
                continue
            kind = "exception" if issubclass(value, BaseException) else "class"
            yield f".. auto{kind}:: cyclewise.{name}"
            if kind == "class":
                yield "   :members:"
            yield ""
