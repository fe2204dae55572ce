"""Fill the tables of super-convergence.md from the stored result and draw its picture: `make docs`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from PIL import Image

from cyclewise import Comparison
from cyclewise.comparison.pictures import mean_course
from cyclewise.comparison.rows import Row
from cyclewise.drawing import Chart, Line
from cyclewise.drawing.figure import draw
from docs.filling import fill

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
PAGE = HERE / "super-convergence.md"
TASKS = {"4,096 images": "", "16,384 images": "_16384", "all 60,000 images": "_60000"}
GOALS = {"constant": 6, "step decay": 2.5}
LENGTH = re.compile(r"one-cycle, ([\d.]+) epochs")


def main() -> None:
    """Write tables and picture."""
    small, larger, whole = (json.loads((RESULTS / f"super_convergence{of}.json").read_text()) for of in TASKS.values())
    texts = parts(**small)
    texts |= {f"larger {name}": text for name, text in parts(**larger).items()}
    texts |= {f"whole {name}": text for name, text in parts(**whole).items()}
    texts["summary"] = summary(dict(zip(TASKS, (task["result"] for task in (small, larger, whole)), strict=True)))
    PAGE.write_text(fill(PAGE.read_text(), texts))
    save_in_rows(charts(whole["result"]), HERE / "pictures" / "super_convergence.png")


def parts(result: dict[str, Any], environment: dict[str, Any]) -> dict[str, str]:
    """Return what the page says of one task, by its marks."""
    baselines, ladder = (Comparison.from_dict(result[name]) for name in ("baselines", "ladder"))
    texts = {
        "verdict": verdict(result, result["shortest"], baselines, ladder),
        "lengths": lengths(result, [*ladder.rows, *baselines.rows]),
        "grids": grids(baselines),
        "setting": "\n".join(f"- {name}: {text}" for name, text in result["setting"].items()),
        "environment": ", ".join(
            f"{name} {environment[name]}"
            for name in ("torch", "gpu", "processor", "commit", "date")
            if name in environment and not (name == "processor" and "gpu" in environment)
        ),
    }
    if "linear_ladder" in result:
        linear = Comparison.from_dict(result["linear_ladder"])
        texts["linear verdict"] = verdict(result, result["linear_shortest"], baselines, linear)
        texts["linear lengths"] = lengths(result, linear.rows)
    if "equal_steps" in result:
        texts["equal"] = equal_steps(result, Comparison.from_dict(result["equal_steps"]))
    return texts


def save_in_rows(pictures: list[Chart], path: Path, columns: int = 3) -> None:
    """Save charts as rows of small pictures of one size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(pictures)
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    tiles = np.array_split(np.asarray(canvas.buffer_rgba())[..., :3], len(pictures))
    height = min(len(tile) for tile in tiles)
    tiles = [tile[:height] for tile in tiles]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    imsave(path, np.concatenate(rows))
    with Image.open(path) as image:  # a palette of 64 colours: a third of the size, and nothing to see of it
        small = image.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def percent(row: Row) -> str:
    """Return a mean accuracy with its standard error."""
    if row.mean is None or row.std_error is None:
        return row.verdict
    return f"{100 * row.mean:.2f} ± {100 * row.std_error:.2f}"


def points(row: Row) -> str:
    """Return a difference in points with its interval."""
    if row.difference is None or row.interval is None:
        return ""
    low, high = row.interval
    return f"{100 * row.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def length_of(row: Row) -> float:
    """Return the epochs that a run of the ladder has."""
    match = LENGTH.fullmatch(row.name)
    assert match is not None
    return float(match[1])


def summary(tasks: dict[str, dict[str, Any]]) -> str:
    """Return a table of how short one-cycle may be on each task, by the better of its forms."""
    rows = [
        "| task | 20 epochs (steps) | as good as the best constant rate in | as good as the best step decay in |",
        "|---|---|---|---|",
    ]
    for task, result in tasks.items():
        cells = []
        for name, goal in GOALS.items():
            lengths = [result[key][name] for key in ("shortest", "linear_shortest") if key in result]
            length = min((length for length in lengths if length is not None), default=None)
            if length is None:
                cells.append("not reached")
                continue
            share = result["epochs"] / length
            met = "met" if share >= goal else "missed"
            cells.append(f"{length:g} epochs, 1/{share:.3g} (goal 1/{goal:g}: {met})")
        steps = result["epochs"] * result["steps_per_epoch"]
        rows.append(f"| {task} | {steps:,} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def verdict(
    result: dict[str, Any], shortest: dict[str, float | None], baselines: Comparison, ladder: Comparison
) -> str:
    """Return in words how short one-cycle may be."""
    lines = []
    for name, goal in GOALS.items():
        what = "best constant rate" if name == "constant" else f"best {name}"
        length = shortest[name]
        own = percent(baselines.row(name))
        if length is None:
            lines.append(f"- **The {what}** ({own} % after {result['epochs']} epochs) is not reached at any length.")
            continue
        row = next(row for row in ladder.rows if length_of(row) == length)
        share = result["epochs"] / length
        met = "met" if share >= goal else "not met"
        lines.append(
            f"- **The {what}** ends at {own} % after {result['epochs']} epochs. One-cycle of {length:g} epochs ends at "
            f"{percent(row)} %: 1/{share:.3g} of the steps (goal 1/{goal:g}: {met})."
        )
    return "\n".join(lines)


def lengths(result: dict[str, Any], ladder: Sequence[Row]) -> str:
    """Return the table of lengths."""
    rows = ["| | epochs | steps | final accuracy (%) | validation loss |", "|---|---|---|---|---|"]
    for row in ladder:
        name = "one-cycle" if LENGTH.fullmatch(row.name) else f"**best {row.name}**"
        losses = [run.final("loss") for run in row.runs]
        loss = sum(value for value in losses if value is not None) / max(1, len(losses))
        epochs = row.total_steps / result["steps_per_epoch"]
        rows.append(f"| {name} | {epochs:g} | {row.total_steps} | {percent(row)} | {loss:.3f} |")
    return "\n".join(rows)


def equal_steps(result: dict[str, Any], equal: Comparison) -> str:
    """Return the table of all policies at equal steps, the best first."""
    rows = [
        "| policy | highest rate | accuracy (%) | difference to constant (95 %) | p | steps spent on the rate |",
        "|---|---|---|---|---|---|",
    ]
    cost = {**result["tuning_steps"], "one-cycle": result["tuning_steps"]["SGDR"]}
    for row in sorted(equal.rows, key=lambda row: -(row.mean or 0.0)):
        p_value = "" if row.p_value is None else f"{row.p_value:.3f}"
        difference = points(row) or ("baseline" if row.name == equal.question.baseline else "")
        rows.append(f"| {row.name} | {row.lr:.3g} | {percent(row)} | {difference} | {p_value} | {cost[row.name]} |")
    if "snapshots" in result:
        scores = [100 * score["accuracy"] for score in result["snapshots"]]
        mean = sum(scores) / len(scores)
        error = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores)) ** 0.5
        paired = [own - 100 * (base or 0.0) for own, base in zip(scores, equal.row("constant").values, strict=True)]
        rows.append(
            f"| SGDR, ensemble of five snapshots | {equal.row('SGDR').lr:.3g} | {mean:.2f} ± {error:.2f} | "
            f"{sum(paired) / len(paired):+.2f} | not tested | {cost['SGDR']} |"
        )
    return "\n".join(rows)


def grids(baselines: Comparison) -> str:
    """Return what each rate of the grids gave on the tuning seeds."""
    rates = [lr for lr, _ in baselines.rows[0].tuning]
    rows = ["| | " + " | ".join(f"{lr:g}" for lr in rates) + " |", "|---|" + "---|" * len(rates)]
    for row in baselines.rows:
        cells = ["diverged" if score is None else f"{100 * score:.2f}" for _, score in row.tuning]
        rows.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def charts(result: dict[str, Any]) -> list[Chart]:
    """Describe the picture: accuracy against steps, one small picture per policy, then final accuracy by length."""
    equal, ladder = (Comparison.from_dict(result[name]) for name in ("equal_steps", "ladder"))
    constant = equal.row("constant")
    result_charts = []
    for row in equal.rows:
        lines = [Line(row.name, *scaled(row))]
        if row.name != "constant":
            lines.insert(0, Line("constant", *scaled(constant), role="secondary", dashed=True))
        result_charts.append(Chart(row.name, "step (optimizer updates)", "accuracy (%)", lines, y_limits=(80.0, 94.0)))
    rows = [row for row in ladder.rows if row.mean is not None]
    final = Line("one-cycle, final", [length_of(row) for row in rows], [100 * (row.mean or 0.0) for row in rows])
    levels = [
        Line(name, [1, result["epochs"]], [100 * (equal.row(name).mean or 0.0)] * 2, role="secondary", dashed=True)
        for name in ("constant", "step decay")
    ]
    return [
        Chart("Final accuracy by length", "length of the run (epochs)", "accuracy (%)", [*levels, final], x_log=True),
        *result_charts,
    ]


def scaled(row: Row) -> tuple[list[int], list[float]]:
    """Return the mean course in percent."""
    steps, means = mean_course(row, "accuracy")
    return steps, [100 * mean for mean in means]


if __name__ == "__main__":
    main()
