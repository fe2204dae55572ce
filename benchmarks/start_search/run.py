"""Does a found start train to a lower loss? Eight problems, five algorithms, five seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.start_search.run [--seeds 0 1 2 3 4]

Each algorithm has 60 evaluations of a run of 30 steps over LayerGains. The start that it finds is trained by one-cycle
for 300 steps and scored on data that no search saw, beside the untouched start (trained as long, and for search plus
training steps), the best of 60 random points of the same space ("RandomSearch", the same search otherwise) and the
best of 60 random re-draws. Runs that are in the file already are not made again.
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import cyclewise as cw
from benchmarks.recording import RESULTS, record
from benchmarks.start_search.problems import (
    LONG_STEPS,
    MAX_LR,
    PROBLEMS,
    SHORT_STEPS,
    Problem,
    adam,
    batches,
    train,
)
from cyclewise.start.evaluation import Evaluate, Job

ALGORITHMS = ("PSO", "OnePlusOne", "CMA", "TwoPointsDE", "RandomSearch")
BUDGET = 60
TRAININGS = 2
PARTIAL = RESULTS / "start_search_runs.jsonl"


def run(problem: Problem, seed: int) -> dict[str, Any]:
    """Return the losses of everything on one problem with one seed."""
    train_batches, valid_batches = batches(problem)
    objective = cw.short_run(problem.loss_fn, train_batches, valid_batches, max_lr=MAX_LR, num_steps=SHORT_STEPS,
                             optimizer=adam)  # fmt: skip
    model = problem.make(seed)
    space = cw.LayerGains(model)

    def trained(make: Any, num_steps: int = LONG_STEPS) -> float:
        return statistics.fmean(
            train(problem, make(), num_steps=num_steps, seed=1000 * seed + k) for k in range(TRAININGS)
        )

    result: dict[str, Any] = {"trained": {}, "objective": {}, "seconds": {}}
    result["trained"]["untouched"] = trained(space.candidate)
    longer = BUDGET * SHORT_STEPS + LONG_STEPS
    result["trained"][f"untouched, {longer} steps"] = trained(space.candidate, longer)
    for algorithm in ALGORITHMS:
        start = time.perf_counter()
        found = cw.search_start(space, objective, algorithm=algorithm, budget=BUDGET, seed=seed)
        result["seconds"][algorithm] = time.perf_counter() - start
        result["objective"][algorithm] = found.best_loss
        result["objective"]["untouched"] = found.baseline_loss
        result["trained"][algorithm] = trained(lambda found=found: found.apply_to(space.candidate()))
    evaluate = Evaluate(space, objective, None, problem.make, seed)
    draws = [10_000 * (seed + 1) + k for k in range(BUDGET)]
    losses = [evaluate(Job(draw=draw)) for draw in draws]
    best = min(range(BUDGET), key=lambda k: losses[k] if losses[k] == losses[k] else float("inf"))
    result["objective"]["re-draws"] = losses[best]
    result["trained"]["re-draws"] = trained(lambda: problem.make(draws[best]))
    return result


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard error per problem and contender, and who beats what."""
    table: dict[str, Any] = {}
    for problem in PROBLEMS:
        runs = [row["result"]["trained"] for row in rows if row["problem"] == problem.name]
        if not runs:
            continue
        table[problem.name] = {
            name: {
                "mean": statistics.fmean(values := [r[name] for r in runs]),
                "std_error": statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None,
                "n": len(values),
            }
            for name in runs[0]
        }
    wins = {
        algorithm: {
            rival: sum(figures[algorithm]["mean"] < figures[rival]["mean"] for figures in table.values())
            for rival in ("RandomSearch", "re-draws", "untouched")
        }
        for algorithm in ALGORITHMS[:-1]
    }
    for algorithm, counts in wins.items():
        counts["RandomSearch and re-draws"] = sum(
            f[algorithm]["mean"] < min(f["RandomSearch"]["mean"], f["re-draws"]["mean"]) for f in table.values()
        )
    return {"table": table, "wins": wins}


def main() -> None:
    """Run what is missing, print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are in the file")
    parser.add_argument("--share", action="store_true", help="only add runs to the file, beside another process")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.fresh:
        PARTIAL.unlink(missing_ok=True)
    rows = [json.loads(line) for line in PARTIAL.read_text().splitlines()] if PARTIAL.exists() else []
    for seed in arguments.seeds:
        for problem in PROBLEMS:
            if any(row["problem"] == problem.name and row["seed"] == seed for row in rows):
                continue
            row = {"problem": problem.name, "seed": seed, "result": run(problem, seed)}
            rows.append(row)
            with Path(PARTIAL).open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(problem.name, seed, {k: round(v, 4) for k, v in row["result"]["trained"].items()}, flush=True)
    if arguments.share:
        return
    rows = [row for row in rows if row["seed"] in arguments.seeds]
    found = summary(rows)
    for name, figures in found["table"].items():
        print(name)
        for contender, figure in figures.items():
            print(f"    {contender:24s} {figure['mean']:.4f} ± {figure['std_error'] or 0:.4f}")
    print(found["wins"])
    settings = {"budget": BUDGET, "short_steps": SHORT_STEPS, "long_steps": LONG_STEPS, "seeds": arguments.seeds,
                "trainings": TRAININGS}  # fmt: skip
    record("start_search", {**settings, **found, "runs": rows})
    PARTIAL.unlink()


if __name__ == "__main__":
    main()
