"""The parts of a page that are made by code, between the marks ``<!-- name -->`` and ``<!-- /name -->``."""

import re
from collections.abc import Mapping


def fill(page: str, texts: Mapping[str, str], *, around: str = "\n") -> str:
    r"""Return a page with what stands between the marks of each name replaced.

    Args:
        page: the page.
        texts: what is to stand there, by name.
        around: what separates it from its marks; "" for a word in a sentence.

    >>> fill("n is <!-- n -->3<!-- /n -->.", {"n": "5"}, around="")
    'n is <!-- n -->5<!-- /n -->.'
    """
    for name, text in texts.items():
        pattern = rf"(<!-- {name} -->).*?(<!-- /{name} -->)"
        page = re.sub(
            pattern,
            lambda match, text=text: f"{match[1]}{around}{text}{around}{match[2]}",  # type: ignore[misc]
            page,
            flags=re.DOTALL,
        )
    return page
