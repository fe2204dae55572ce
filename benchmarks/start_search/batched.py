"""Candidates scored in one pass against one by one: evaluations per second, and how far the values differ.

OMP_NUM_THREADS=1 python -m benchmarks.start_search.batched
"""

import statistics
import time
import warnings

import torch
from torch import nn

import cyclewise as cw
from benchmarks.recording import record

BUDGET, ROUNDS = 400, 5
SIZES = {
    "64-32-32-10, 64 samples": (32, 64),
    "64-32-32-10, 256 samples": (32, 256),
    "64-128-128-10, 256 samples": (128, 256),
}


def main() -> None:
    """Time both ways in turn and print the ratio."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result = {}
    for name, (width, samples) in SIZES.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
        batches = [(torch.randn(samples, 64), torch.randint(0, 10, (samples,)))]
        for kind in (cw.HeldOutLoss, cw.GradientBalance):
            objective = kind(nn.functional.cross_entropy, batches)
            space = cw.LayerGains(model)
            rates: dict[int, list[float]] = {0: [], 32: []}
            for _ in range(ROUNDS):
                for batched in rates:
                    start = time.perf_counter()
                    found = cw.search_start(
                        space, objective, algorithm="RandomSearch", budget=BUDGET, batched=batched, deterministic=True
                    )
                    rates[batched].append(found.num_evaluations / (time.perf_counter() - start))
            differences = []
            for evaluation in found.evaluations[:50]:
                one = objective(space.candidate(evaluation.point))
                differences.append(abs(evaluation.loss - one) / abs(one))
            ratios = [many / one for many, one in zip(rates[32], rates[0], strict=True)]
            result[f"{kind.__name__}, {name}"] = {
                "ratio": statistics.median(ratios), "ratios": ratios, "one by one": statistics.median(rates[0]),
                "batched": statistics.median(rates[32]), "largest relative difference": max(differences),
            }  # fmt: skip
            print(
                kind.__name__,
                name,
                {k: v for k, v in result[f"{kind.__name__}, {name}"].items() if k != "ratios"},
                flush=True,
            )
    record("start_search_batched", {"budget": BUDGET, "rounds": ROUNDS, "per pass": 32, "rows": result})


if __name__ == "__main__":
    main()
