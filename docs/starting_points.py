"""The results on the page about starting points, from the stored figures of the benchmark.

python docs/starting_points.py
"""

import json
from pathlib import Path

from docs.filling import fill

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
COLUMNS = ("untouched", "re-draws", "RandomSearch", "PSO", "OnePlusOne", "CMA", "TwoPointsDE")


def table() -> str:
    """Return the table and the sentences under it."""
    result = json.loads((RESULTS / "start_search.json").read_text())["result"]
    longest = next(name for name in next(iter(result["table"].values())) if name.startswith("untouched, "))
    columns = [COLUMNS[0], longest, *COLUMNS[1:]]
    heads = {
        "re-draws": "best re-draw",
        "RandomSearch": "best random point",
        longest: longest.replace("untouched, ", "… "),
    }
    lines = [
        "| problem | " + " | ".join(heads.get(name, name) for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for problem, figures in result["table"].items():
        cells = [f"{figures[name]['mean']:.3f} ± {figures[name]['std_error']:.3f}" for name in columns]
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    wins = result["wins"]
    counts = ", ".join(f"{name} {count['RandomSearch and re-draws']}" for name, count in wins.items())
    n = len(result["seeds"])
    return "\n".join(
        [
            f"Loss on data that no search saw, after {result['long_steps']} steps of one-cycle from the start that was "
            f"found with {result['budget']} runs of {result['short_steps']} steps over `LayerGains`; mean ± standard "
            f"error, n={n} seeds. All columns train as long but the second, which has the search's steps too.",
            "",
            *lines,
            "",
            f"On how many of the {len(result['table'])} problems the mean is below both the best of as many random "
            f"points of the same space and the best of as many re-draws: {counts}.",
        ]
    )


def main() -> None:
    """Write the page."""
    page = DOCS / "starting-points.md"
    page.write_text(fill(page.read_text(), {"results": table()}))


if __name__ == "__main__":
    main()
