"""What decides a run's outcome is told by the source files that training imports: none may be missing from the list."""

import ast
from pathlib import Path

from cyclewise.comparison.store import _TRAINS

SOURCES = Path(__file__).parents[2] / "src" / "cyclewise"
# Pictures, bars, checks and pages decide no outcome; nor do the diagnosis and the start search: a fit calls neither.
WITHOUT_EFFECT = {
    "drawing", "report", "progress.py", "errors.py", "_validation.py", "landscape", "start", "engines", "experiments",
    "__init__.py",
}  # fmt: skip


def imported(source):
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "cyclewise":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cyclewise."):
            yield node.module.split(".")[1]


def test_every_part_that_training_imports_is_listed():
    listed = {part.split("/")[0] for part in _TRAINS}
    sources = [
        path for part in _TRAINS for path in ([SOURCES / part] if ".py" in part else (SOURCES / part).glob("*.py"))
    ]
    parts = {part for source in sources for part in imported(source)}
    names = {part if (SOURCES / part).is_dir() else f"{part}.py" for part in parts}
    assert names - listed - WITHOUT_EFFECT == set()
