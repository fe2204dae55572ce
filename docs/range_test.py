"""Fill the tables of range-test.md from the stored results: `make docs`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.lr_regret.hard_tasks import HARD
from benchmarks.lr_regret.regret import summary
from benchmarks.lr_regret.wider_tasks import WIDER
from docs.filling import fill

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
PAGE = Path(__file__).with_name("range-test.md")
# The development tasks in the order in which they were made.
FIRST = "the first 76"
LATER = ((HARD, "the 32 of the weak kinds"), (WIDER, "the last 23"))
LIMITS_HEAD = "| | median | mean | 90th percentile | worst | over 5 % | over 10 % |\n|---|---|---|---|---|---|---|"
HEAD = "| | median | mean | 90th percentile | worst | over 5 % | refused |\n|---|---|---|---|---|---|---|"


def result_of(name: str) -> Any:
    """Return the stored result of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())["result"]


def row(label: str, figures: dict[str, float], refused: str = "") -> str:
    """Return one row of a table of regrets."""
    values = " | ".join(f"{figures[key]:.1f}" for key in ("median", "mean", "p90", "worst", "over_5"))
    return f"| {label} | {values} | {refused} |"


def table(tasks: str) -> str:
    """Return the table of one list of tasks."""
    own, peers = result_of(f"lr_regret_{tasks}"), result_of(f"lr_regret_peers_{tasks}")
    rows = [row(f"**`lr_find`, {n} steps**", own[f"{n} steps"]["regret"], f"{own[f'{n} steps']['refused']}")
            for n in (100, 300, 50)]  # fmt: skip
    rows.append(row("`constant_lr`, 100 steps", own["100 steps"]["constant_regret"]))
    rows += [row(label, figures) for label, figures in peers["regret"].items()]
    rows.append(row("every rate trained to its end, once", own["whole_grid_once"]))
    rows.append(row("noise floor", own["noise_floor"]))
    return "\n".join([HEAD, *rows])


def kinds() -> str:
    """Return the table of the development tasks, lot by lot as they were made."""
    own = result_of("lr_regret_development")
    later = {task.name: label for lot, label in LATER for task in lot}
    rows = []
    for label in (FIRST, *(label for _, label in LATER)):
        for n in ("100 steps", "100 steps, length known", "300 steps", "300 steps, length known"):
            scores = [score for score in own[n]["scores"] if later.get(score["task"], FIRST) == label]
            refused = sum(score["refusal"] is not None for score in scores)
            rows.append(row(f"{label}, {n}", summary([score["regret"] for score in scores]), f"{refused}"))
    return "\n".join([HEAD, *rows])


def limits() -> str:
    """Return the table of what stands in the way."""
    results = {n: result_of(f"lr_regret_limits_{n}") for n in (100, 300)}
    labels = {
        "the rule": "`lr_find`",
        "best factor for each task": "each task's suggestions moved by the best factor for it",
        "factor chosen by a forest, least gain 0.0": "moved by a factor that a forest chose",
        "factor chosen by a forest, least gain 0.02": "the same, where it promised much",
    }  # fmt: skip
    rows = [_limit(f"{label}, {n} steps", results[n][name]) for name, label in labels.items() for n in results]
    rows += [_limit(f"every rate to its end, once, smoothed over {width} decades",
                    results[100][f"every rate to its end once, smoothed over {width} decades"])
             for width in (0.08, 0.15, 0.25, 0.35)]  # fmt: skip
    return "\n".join([LIMITS_HEAD, *rows])


def starts() -> str:
    """Return the table of what the start of a run knows."""
    rows = []
    for which, tasks in (("test", "test tasks"), ("development", "development tasks")):
        for n in (100, 300):
            own = [score["regret"] for score in result_of(f"lr_regret_{which}")[f"{n} steps"]["scores"]]
            rows.append(_limit(f"{tasks}: `lr_find`, {n} steps", summary(own)))
            short = result_of(f"lr_regret_short_runs_{n}")
            label = f"{tasks}: every rate for {n} steps ({short['updates']:,.0f} updates)"
            rows.append(_limit(label, short[f"{which}, short runs, moved, smoothed over 0.08 decades"]))
    return "\n".join([LIMITS_HEAD, *rows])


def probes() -> str:
    """Return the table of short runs about the suggestion."""
    result = result_of("lr_regret_probes")
    names = {
        "lr_find, 100 steps": "`lr_find`, 100 steps",
        "lr_find, 100 steps, then 2 runs of 100": "`lr_find`, 100 steps, then two runs of 100",
        "lr_find, 100 steps, then 3 wide runs of 65": "`lr_find`, 100 steps, then three runs of 65",
        "lr_find, 300 steps": "`lr_find`, 300 steps",
        "lr_find, 300 steps, then 2 runs of 100": "`lr_find`, 300 steps, then two runs of 100",
        "lr_find, 300 steps, then 7 runs of 100": "`lr_find`, 300 steps, then seven runs of 100",
    }  # fmt: skip
    rows = [_limit(f"{label} ({result[name].get('updates', name.split()[1])} updates)", result[name])
            for name, label in names.items()]  # fmt: skip
    return "\n".join([LIMITS_HEAD, *rows])


def _limit(label: str, figures: dict[str, float]) -> str:
    return row(label, figures, f"{figures['over_10']:.1f}")


def refusals() -> str:
    """Return the table of refusals."""
    result = result_of("lr_refusals")
    labels = {
        "labels": "class labels shuffled", "noise": "quantities replaced by noise",
        "loud": "loss that is noise for the most part", "good": "good tasks",
    }  # fmt: skip
    rows = [f"| {label} | {part['refused']} of {part['n']} | {100 * part['refused'] / part['n']:.1f} % "
            f"({part['bounds_percent'][0]:.1f} – {part['bounds_percent'][1]:.1f}) |"
            for label, part in ((label, result[kind]) for kind, label in labels.items())]  # fmt: skip
    return "\n".join(["| | refused | 95 % bounds |", "|---|---|---|", *rows])


if __name__ == "__main__":
    test, dev = result_of("lr_regret_test"), result_of("lr_regret_development")
    cost = {name: f"{part['ratio']:.2f}" for name, part in result_of("lr_find_cost").items()}
    tables = {
        "test": table("test"),
        "development": table("development"),
        "kinds": kinds(),
        "refusals": refusals(),
        "limits": limits(),
        "starts": starts(),
        "probes": probes(),
    }
    figures = {
        "sgd": cost["SGD"],
        "adamw": cost["AdamW"],
        "again": cost["AdamW, 1600 samples"],
        "few": cost["AdamW, 480 samples"],
        "hits": f"{test['100 steps']['interval_hits_percent']:.0f}",
        "fifty": f"{test['50 steps']['regret']['mean']:.1f}",
        "hundred": f"{test['100 steps']['regret']['mean']:.1f}",
        "worst": f"{test['100 steps']['regret']['worst']:.1f}",
        "worst300": f"{test['300 steps']['regret']['worst']:.1f}",
        "three": f"{test['300 steps']['regret']['mean']:.1f}",
        "over300": f"{test['300 steps']['regret']['over_5']:.1f}",
        "unknown": f"{dev['100 steps']['regret']['mean']:.1f}",
        "known": f"{dev['100 steps, length known']['regret']['mean']:.1f}",
        "unknown300": f"{dev['300 steps']['regret']['mean']:.1f}",
        "known300": f"{dev['300 steps, length known']['regret']['mean']:.1f}",
    }
    PAGE.write_text(fill(fill(PAGE.read_text(), tables), figures, around=""))
