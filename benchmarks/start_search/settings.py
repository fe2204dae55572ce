"""How to set up Nevergrad's swarm on spaces of starts: its transform and its population, on development seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.start_search.settings

Nevergrad's PSO moves its particles in a unit box. The transform says how a number is brought into the box: "arctan" is
its default, "gaussian" matches the way a space's coordinates are searched here, "identity" is no box at all. Seeds from
100 on, which the comparison in run.py does not use.
"""

import statistics
import warnings

import torch

import cyclewise as cw
from benchmarks.recording import record
from benchmarks.start_search.problems import MAX_LR, PROBLEMS, SHORT_STEPS, adam, batches
from cyclewise.start import algorithms

SEEDS = (100,)
BUDGET = 60
SETUPS = [(transform, population) for population in (None, 40) for transform in ("gaussian", "arctan", "identity")]


def main() -> None:
    """Run every set-up on every problem and print its mean rank."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    losses: dict[str, dict[str, list[float]]] = {}
    ranks: dict[str, list[int]] = {}
    for problem in PROBLEMS:
        train_batches, valid_batches = batches(problem)
        objective = cw.short_run(problem.loss_fn, train_batches, valid_batches, max_lr=MAX_LR, num_steps=SHORT_STEPS,
                                 optimizer=adam)  # fmt: skip
        for seed in SEEDS:
            space = cw.LayerGains(problem.make(seed))
            found = {}
            for transform, population in SETUPS:
                algorithms._TRANSFORM = transform
                search = cw.search_start(space, objective, budget=BUDGET, seed=seed, population=population)
                found[f"{transform}, {search.population} particles"] = search.best_loss
            for rank, name in enumerate(sorted(found, key=lambda name: found[name]), 1):
                ranks.setdefault(name, []).append(rank)
                losses.setdefault(problem.name, {}).setdefault(name, []).append(found[name])
            print(problem.name, seed, {name: round(loss, 4) for name, loss in found.items()}, flush=True)
    table = {name: {"mean rank": statistics.fmean(r), "std_error": statistics.stdev(r) / len(r) ** 0.5, "n": len(r)}
             for name, r in ranks.items()}  # fmt: skip
    for name, figures in sorted(table.items(), key=lambda item: item[1]["mean rank"]):
        print(f"{name:30s} {figures['mean rank']:.2f} ± {figures['std_error']:.2f}")
    record("start_search_settings", {"budget": BUDGET, "seeds": SEEDS, "ranks": table, "losses": losses})


if __name__ == "__main__":
    main()
