"""What watching a run costs, as a ratio to the same run unwatched.

    OMP_NUM_THREADS=1 python benchmarks/watch.py [--rounds 7]

Two perceptrons, cross-entropy, one thread: the one of `training_loop.py` (64-128-128-10, batches of 64, about 0.5 ms a
step, where everything that does not grow with the model weighs most) with SGD with momentum 0.9 and with AdamW, and a
larger one (256-384-384-10, batches of 192, about 4 ms a step; a third of the rounds) with SGD. Each is trained by the
Learner and by a loop of one's own, without and with ``cw.Watch()``, for as many steps as lie between two measurements
of the sharpness, so that each kind of measurement has its share. All in one process, in turns, with fresh models each
time; the figure is the median over the rounds of (time watched / time unwatched in the same round). The time is the
processor's for this process, which on one thread is that of the wall clock where nothing else runs.

Goal: at most 1.05 with the default settings. The second table says what each measurement costs in steps: what the
default intervals are computed from.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

SIZES = {"0.5 ms": (64, 128, 128, 10, 64), "4 ms": (256, 384, 384, 10, 192)}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}
STEPS = dict(cw.Watch().record.settings)["sharpness_every"]
STEPS_PER_COST = 40


def network(size: str) -> nn.Module:
    """Return the perceptron of a size, the same one every time."""
    torch.manual_seed(0)
    inputs, first, second, outputs, _ = SIZES[size]
    return nn.Sequential(
        nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs)
    )


def batches(size: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return 50 batches."""
    width, *_, outputs, batch = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50 * batch, width, generator=generator)
    targets = (inputs @ torch.randn(width, outputs, generator=generator)).argmax(1)
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


def timed(run: Callable[[], object]) -> float:
    """Return the processor seconds of one call."""
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start


def learner(size: str, optimizer: str, watch: cw.Watch | None, steps: int = STEPS) -> float:
    """Time a fit."""
    model = network(size)
    learn = cw.Learner(model, batches(size), loss_fn=F.cross_entropy, progress=False,
                       optimizer=OPTIMIZERS[optimizer](model.parameters()))  # fmt: skip
    policy = cw.Constant(lr=learn.optimizer.param_groups[0]["lr"], total_steps=steps)
    return timed(lambda: learn.fit(policy, callbacks=[] if watch is None else [watch]))


def loop(size: str, optimizer: str, watch: cw.Watch | None, steps: int = STEPS) -> float:
    """Time a hand-written loop."""
    model, data = network(size), batches(size)
    updates = OPTIMIZERS[optimizer](model.parameters())

    def run() -> None:
        if watch is not None:
            watch.start(model, updates, F.cross_entropy)
        for number in range(steps):
            inputs, targets = data[number % len(data)]
            updates.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            if watch is not None:
                watch.step((inputs, targets))
            updates.step()
            loss.item()

    return timed(run)


RUNS = {"Learner": learner, "loop": loop}
# One kind of measurement at every step, the others never.
KINDS: dict[str, dict[str, Any]] = {
    "nothing due": {"every": 10**9, "noise_every": None, "sharpness_every": None},
    "norms": {"every": 1, "noise_every": None, "sharpness_every": None},
    "noise": {"every": 10**9, "noise_every": 1, "sharpness_every": None},
    "sharpness, 5 products": {"every": 10**9, "noise_every": None, "sharpness_every": 1, "num_products": 5},
    "sharpness, 9 products": {"every": 10**9, "noise_every": None, "sharpness_every": 1, "num_products": 9},
}


def costs(size: str, optimizer: str, rounds: int) -> dict[str, float]:
    """Return what one measurement of each kind costs, in steps of the unwatched loop: medians over the rounds."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(rounds + 1):
        plain = loop(size, optimizer, None, STEPS_PER_COST)
        for kind, options in KINDS.items():
            watched = loop(size, optimizer, cw.Watch(**options), STEPS_PER_COST)
            if index:
                found[kind].append(watched / plain - 1.0)
    return {kind: statistics.median(values) for kind, values in found.items()}


def main() -> None:
    """Measure in turns, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows, prices = [], []
    for size in SIZES:
        for optimizer in OPTIMIZERS if size == "0.5 ms" else ["SGD"]:
            for name, run in RUNS.items():
                ratios, plain_seconds = [], []
                for index in range((rounds if size == "0.5 ms" else max(1, rounds // 3)) + 1):
                    plain, watched = run(size, optimizer, None), run(size, optimizer, cw.Watch())
                    if index:  # the first round warms caches up
                        ratios.append(watched / plain)
                        plain_seconds.append(plain)
                rows.append({"model": size, "optimizer": optimizer, "run": name, "ratio": statistics.median(ratios),
                             "ms_per_step": 1000 * min(plain_seconds) / STEPS, "ratios": ratios})  # fmt: skip
                print(f"{size:7} {optimizer:6} {name:8} {statistics.median(ratios):6.3f}  "
                      f"({min(ratios):.3f} - {max(ratios):.3f})  {rows[-1]['ms_per_step']:.3f} ms a step")  # fmt: skip
            price = costs(size, optimizer, rounds)
            prices.append({"model": size, "optimizer": optimizer, "steps": price})
            print(f"{size:7} {optimizer:6} in steps:", ", ".join(f"{k} {v:.2f}" for k, v in price.items()))
    record("watch", {"rounds": rounds, "steps": STEPS, "settings": dict(cw.Watch().record.settings), "rows": rows,
                     "costs": prices})  # fmt: skip


if __name__ == "__main__":
    main()
