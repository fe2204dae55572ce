"""Fill the tables of on-a-gpu.md from the stored results: `make docs`."""

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

from docs.filling import fill

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
PAGE = HERE / "on-a-gpu.md"
WAYS = {"own": "model alone", "hand": "hand-written loop", "learner": "Learner", "lightning": "Lightning"}


def main() -> None:
    """Write the tables."""
    tuned, judged, steps = (
        json.loads((RESULTS / f"gpu_{name}.json").read_text())["result"]
        for name in ("fashion_tune", "fashion_judge", "steps")
    )
    texts = {"tuned": runs(tuned["runs"]), "judged": runs(judged["runs"]), "steps": costs(steps["rows"])}
    PAGE.write_text(fill(PAGE.read_text(), texts))


def runs(all_runs: list[dict[str, Any]]) -> str:
    """Return a table of runs, a row for those that differ in the seed alone."""
    rows = [
        "| width | patch | epochs | accuracy (%) | lowest to highest | n | seconds | peak rates found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (width, patch, epochs), group in groupby(all_runs, lambda run: (run["width"], run["patch"], run["epochs"])):
        own = list(group)
        accuracies = [100 * run["accuracy"] for run in own]
        rates = [run["max_lr"] for run in own]
        error = statistics.stdev(accuracies) / len(own) ** 0.5
        rows.append(
            f"| {width} | {patch or 'none'} | {epochs:g} | {statistics.mean(accuracies):.2f} ± {error:.2f} | "
            f"{min(accuracies):.2f} to {max(accuracies):.2f} | {len(own)} | "
            f"{statistics.median(run['seconds'] for run in own):.1f} | {min(rates):.2g} to {max(rates):.2g} |"
        )
    return "\n".join(rows)


def costs(all_rows: list[dict[str, Any]]) -> str:
    """Return a table of what a step costs."""
    rows = ["| model | form | " + " | ".join(WAYS.values()) + " |", "|---|---|" + "---|" * len(WAYS)]
    for row in all_rows:
        cells = [f"{row['ms'][way]:.2f} ms ({row['of_own'][way]:.2f})" for way in WAYS]
        rows.append(f"| {row['subject']} | {row['form']} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
