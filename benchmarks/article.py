"""The article's three experiments as printed: which of its claims are seen.

    OMP_NUM_THREADS=1 python benchmarks/article.py [--small] [--images 10000] [--seeds 3] [--store FOLDER]

What ``cyclewise experiment all`` runs, with the outcome kept beside the environment. Started again with a store, it
goes on with the runs that are missing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from cyclewise.experiments.article import run_experiments
from cyclewise.experiments.experiment import Experiment

sys.path.insert(0, str(Path(__file__).parent))
from recording import record


def finals(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """Return what each run ended with."""
    rows = {}
    for experiment in experiments:
        for setting, runs in experiment.runs.items():
            for run in runs:
                last = run.history.epochs[-1] if run.final("loss") is not None else None
                rows[setting.name, run.seed] = {
                    "setting": setting.name,
                    "seed": run.seed,
                    "diverged": run.error,
                    "accuracy": None if last is None else last.metrics["accuracy"],
                    "train_loss": None if last is None else last.train_loss,
                    "valid_loss": None if last is None else last.valid_loss,
                    "steps": run.num_steps,
                    "seconds": run.seconds,
                }
    return list(rows.values())


def main() -> None:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiments = run_experiments(
        small=arguments.small, num_images=arguments.images, seeds=range(arguments.seeds), store=arguments.store,
        workers=arguments.workers, engine="local" if arguments.workers == 1 else "processes",
        on_run=lambda name: print(name, flush=True),
    )  # fmt: skip
    claims = [claim.to_dict() for experiment in experiments for claim in experiment.claims]
    for claim in claims:
        print(
            {True: "seen    ", False: "not seen", None: "diverged"}[claim["seen"]], claim["subject"], claim["numbers"]
        )
    result = {"setting": dict(experiments[0].setting), "claims": claims, "runs": finals(experiments)}
    record(f"article_{'digits' if arguments.small else 'fashion_mnist'}", result)


if __name__ == "__main__":
    main()
