"""What `lr_find` costs: its time over that of as many bare training steps, in one run, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/lr_find_cost.py

A perceptron of about a million parameters, batches of 64, SGD with momentum and AdamW, a DataLoader; and AdamW with
1600 and 480 samples, where held-out batches are looked at more often. Goal: at most 1.15 with all that it does besides
updating: loading, scoring held-out batches, giving everything back.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

NUM_STEPS = 100
REPEATS = 7
# Optimizer and training samples.
TASKS = {
    "SGD": ("SGD", 7680),
    "AdamW": ("AdamW", 7680),
    "AdamW, 1600 samples": ("AdamW", 1600),
    "AdamW, 480 samples": ("AdamW", 480),
}


def task(name: str) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[tuple[torch.Tensor, ...]]]:
    """Return a fresh model of 1.0 million parameters with its optimizer and loader."""
    optimizer, num_samples = TASKS[name]
    torch.manual_seed(0)
    inputs = torch.randn(num_samples, 256)
    targets = (inputs @ torch.randn(256, 10)).argmax(1)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(256, 768), nn.ReLU(), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 256),
                          nn.ReLU(), nn.Linear(256, 10))  # fmt: skip
    kind = {
        "SGD": lambda p: torch.optim.SGD(p, lr=1e-5, momentum=0.9),
        "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-7),
    }
    return model, kind[optimizer](model.parameters()), loader


def bare(name: str, num_steps: int) -> float:
    """Return the seconds of that many hand-written training steps."""
    model, optimizer, loader = task(name)
    start = time.perf_counter()
    done = 0
    while done < num_steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == num_steps:
                break
    return time.perf_counter() - start


def found(name: str) -> tuple[float, int]:
    """Return the seconds of one range test, and its updates."""
    model, optimizer, loader = task(name)
    start = time.perf_counter()
    result = cw.lr_find(model, optimizer, nn.functional.cross_entropy, loader, num_steps=NUM_STEPS, progress=False)
    return time.perf_counter() - start, result.num_steps


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    figures = {}
    for name in TASKS:
        found(name), bare(name, NUM_STEPS)
        ratios, steps = [], []
        for _ in range(REPEATS):
            seconds, updates = found(name)
            reference = bare(name, updates)
            ratios.append(seconds / reference)
            steps.append(1000 * reference / updates)
        figures[name] = {"ratio": statistics.median(ratios), "ratios": ratios, "step_ms": statistics.median(steps)}
        print(f"{name}: {figures[name]['ratio']:.3f} of bare steps of {figures[name]['step_ms']:.2f} ms; "
              f"{min(ratios):.3f} - {max(ratios):.3f}")  # fmt: skip
    record("lr_find_cost", figures)


if __name__ == "__main__":
    main()
