"""What a scheduler step costs: `PolicyLR.step()` against torch's `OneCycleLR.step()`, and rates against cosines.

Run with `OMP_NUM_THREADS=1 python benchmarks/scheduler_step.py`; writes `benchmarks/results/scheduler_step.json`. Both
schedulers run in one process, in turns, so that a noisy machine disturbs both; the ratio of the minima is the figure.
"""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from recording import record

import cyclewise as cw

TOTAL_STEPS = 2_000
REPEATS = 15
SETTINGS = {"max_lr": 0.4, "total_steps": TOTAL_STEPS, "base_momentum": 0.85, "max_momentum": 0.95}


def make_optimizer(kind: type[torch.optim.Optimizer], num_groups: int) -> torch.optim.Optimizer:
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return kind([{"params": [torch.zeros(1)]} for _ in range(num_groups)], lr=0.1, **options)


def seconds_per_step(make: Callable[[], torch.optim.lr_scheduler.LRScheduler], num_steps: int) -> float:
    scheduler = make()
    start = time.perf_counter()
    for _ in range(num_steps):
        scheduler.step()
    return (time.perf_counter() - start) / num_steps


def compare(kind: type[torch.optim.Optimizer], num_groups: int) -> dict[str, object]:
    num_steps = max(100, 1_500 // num_groups)
    makers = {
        "cyclewise": lambda: cw.PolicyLR(make_optimizer(kind, num_groups), cw.OneCycle(**SETTINGS)),
        "torch": lambda: torch.optim.lr_scheduler.OneCycleLR(make_optimizer(kind, num_groups), **SETTINGS),
    }
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(REPEATS):
        for name, make in makers.items():
            times[name].append(seconds_per_step(make, num_steps))
    row: dict[str, object] = {"optimizer": kind.__name__, "groups": num_groups, "repeats": REPEATS}
    for name, values in times.items():
        row[f"{name}_min_us"] = 1e6 * min(values)
        row[f"{name}_median_us"] = 1e6 * float(np.median(values))
    row["ratio_of_minima"] = min(times["cyclewise"]) / min(times["torch"])
    return row


def vectorised() -> dict[str, object]:
    steps = np.arange(1_000_000)
    angles = np.linspace(0.0, np.pi, len(steps))
    policy = cw.OneCycle(max_lr=0.4, total_steps=len(steps))
    calls = {"lr": lambda: policy.lr(steps), "cos": lambda: np.cos(angles)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {
        "steps": len(steps),
        "lr_min_ms": 1e3 * min(times["lr"]),
        "cos_min_ms": 1e3 * min(times["cos"]),
        "ratio_of_minima": min(times["lr"]) / min(times["cos"]),
    }


def main() -> None:
    torch.set_num_threads(1)
    # The schedulers step without an optimizer step between them, of which torch's warns.
    warnings.simplefilter("ignore")
    rows = [compare(kind, groups) for kind in (torch.optim.SGD, torch.optim.AdamW) for groups in (1, 10, 100)]
    result = {"step": rows, "vectorised": vectorised(), "goals": {"step": 0.35, "vectorised": 4.0}}
    for row in rows:
        print("{optimizer:6} {groups:4} groups: {cyclewise_min_us:8.2f} us, torch {torch_min_us:8.2f} us, "
              "ratio {ratio_of_minima:.3f}".format(**row))  # fmt: skip
    print("a million rates: {lr_min_ms:.1f} ms, cosine {cos_min_ms:.1f} ms, ratio {ratio_of_minima:.2f}".format(
        **result["vectorised"]))  # fmt: skip
    record("scheduler_step", result)


if __name__ == "__main__":
    main()
