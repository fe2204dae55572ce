"""Fill the tables of experiments.md from the stored results of benchmarks/article.py: `make docs`."""

import json
from pathlib import Path
from typing import Any

from docs.filling import fill

PAGE = Path(__file__).with_name("experiments.md")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
# What the marks of each result's tables on the page begin with.
FILES = {"": "article_digits.json", "fashion ": "article_fashion_mnist.json"}
OUTCOMES = {True: "**seen**", False: "not seen", None: "diverged"}


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def claims(result: dict[str, Any]) -> str:
    """Return a row per claim and setting."""
    rows = [[c["statement"], c["subject"], OUTCOMES[c["seen"]], c["numbers"]] for c in result["claims"]]
    return table(["claim", "setting", "", "numbers"], rows)


def criteria(result: dict[str, Any]) -> str:
    """Return each claim's criterion, once."""
    known = {claim["statement"]: claim["criterion"] for claim in result["claims"]}
    return "\n".join(f"- {statement}: {criterion}." for statement, criterion in known.items())


def runs(result: dict[str, Any]) -> str:
    """Return what each run ended with."""
    rows = [
        [run["setting"], "diverged", "", "", ""]
        if run["accuracy"] is None
        else [
            run["setting"], f"{100 * run['accuracy']:.2f}", f"{run['train_loss']:.4f}", f"{run['valid_loss']:.4f}",
            f"{run['seconds']:.0f}",
        ]
        for run in result["runs"]
    ]  # fmt: skip
    return table(["setting", "accuracy (%)", "training loss", "validation loss", "seconds"], rows)


if __name__ == "__main__":
    texts = {}
    for mark, file in FILES.items():
        stored = json.loads((RESULTS / file).read_text())
        result, environment = stored["result"], stored["environment"]
        texts |= {
            f"{mark}claims": claims(result),
            f"{mark}runs": runs(result),
            f"{mark}setting": "\n".join(f"- {name}: {text}" for name, text in result["setting"].items()),
            f"{mark}environment": ", ".join(
                f"{name} {environment[name]}" for name in ("torch", "processor", "commit", "date")
            ),
        }
        texts["criteria"] = criteria(result)
    PAGE.write_text(fill(PAGE.read_text(), texts))
