"""The README's Python blocks as one program: what the test and the release check both run."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def code() -> str:
    """Return the README's Python blocks, joined in order."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE))


if __name__ == "__main__":
    print(code())
