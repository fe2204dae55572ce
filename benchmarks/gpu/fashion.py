"""Fashion-MNIST to 94 % in the fewest seconds: the Learner in bf16, compiled, with the data on the device.

    python -m benchmarks.gpu.fashion tune [--widths 32 64] [--patches 0 8] [--epochs 8 12] [--factors 1]
    python -m benchmarks.gpu.fashion judge --widths 64 --patches 8 --epochs 8 [--seeds 10]

``tune`` trains on the first 50,000 training images and is judged by the last 10,000, with seeds of its own; ``judge``
trains on all 60,000 and is judged once by the test images. The peak is what `lr_find` gives for the seed at hand
(``--factors`` holds multiples of it against it). The seconds are those of ``fit_one_cycle`` to the end, with the
validation after every epoch; what comes before (compiling, the range test) is told beside them.
"""

import argparse
import statistics
import time
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from benchmarks.gpu.network import nine_layers
from benchmarks.recording import record
from cyclewise.experiments.fashion import fashion_mnist

GOAL = 0.94
BATCH_SIZE = 500  # divides both sets, so that every batch has the shape that was compiled
TUNING_SEEDS = (100, 101)


def smoothed_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with a tenth of each target spread over all classes."""
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def data(seed: int, *, is_tuning: bool) -> cw.Data:
    """Return all images on the device."""
    device = torch.device("cuda")
    images = [tensor.to(device) for tensor in fashion_mnist()]
    train, held_out = images[:2], images[2:]
    if is_tuning:
        train, held_out = [tensor[:50_000] for tensor in images[:2]], [tensor[50_000:] for tensor in images[:2]]

    def loader(arrays: list[torch.Tensor]) -> Any:
        return cw.Data.from_arrays(*arrays, valid_fraction=0.0, batch_size=BATCH_SIZE, seed=seed).train_loader

    return cw.Data(loader(train), loader(held_out))


def make_learner(seed: int, width: int, patch: int, *, is_tuning: bool) -> cw.Learner:
    """Return an untrained Learner; the seed draws the weights, the order of the batches and the augmentation."""
    torch.manual_seed(seed)
    model: nn.Module = nine_layers(width, patch=patch).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    return cw.Learner(
        model, data(seed, is_tuning=is_tuning), loss_fn=smoothed_loss, optimizer=optimizer,
        metrics={"accuracy": cw.accuracy}, progress=False, mixed_precision="bf16",
        compile={"mode": "reduce-overhead", "dynamic": False},
    )  # fmt: skip


def one_run(
    seed: int, width: int, patch: int, epochs: float, *, factor: float = 1.0, is_tuning: bool
) -> dict[str, Any]:
    """Return what one run gave and took."""
    learn = make_learner(seed, width, patch, is_tuning=is_tuning)
    start = time.perf_counter()
    found = learn.lr_find()
    learn.evaluate()  # compiles what is left to compile
    torch.cuda.synchronize()
    before = time.perf_counter() - start
    start = time.perf_counter()
    rate = None if found.max_lr is None else factor * found.max_lr
    history = learn.fit_one_cycle(epochs, max_lr=rate, moms=None, pct_start=0.25)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "seed": seed, "width": width, "patch": patch, "epochs": epochs, "factor": factor, "max_lr": rate,
        "interval": found.interval, "steps": history.num_steps,
        "accuracy": history.epochs[-1].metrics["accuracy"], "seconds": seconds, "seconds_before": before,
    }  # fmt: skip


def summary(runs: list[dict[str, Any]]) -> str:
    """Return a line about runs that differ in the seed alone."""
    accuracies, seconds = [run["accuracy"] for run in runs], [run["seconds"] for run in runs]
    rates = [run["max_lr"] for run in runs]
    spread = statistics.stdev(accuracies) if len(runs) > 1 else float("nan")
    return (
        f"width {runs[0]['width']:3}  patch {runs[0]['patch']}  {runs[0]['epochs']:4g} epochs  "
        f"rate x {runs[0]['factor']:g}  accuracy {statistics.mean(accuracies):.4f} "
        f"(sd {spread:.4f}, {min(accuracies):.4f} to {max(accuracies):.4f}, n {len(runs)})  "
        f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{1000 * statistics.median(seconds) / runs[0]['steps']:.2f} ms a step; rates {min(rates):.2g} to "
        f"{max(rates):.2g}; before {statistics.median(run['seconds_before'] for run in runs):.1f} s"
    )


def main() -> None:
    """Tune or judge, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "judge"))
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64))
    parser.add_argument("--patches", type=int, nargs="+", default=(0, 8))
    parser.add_argument("--epochs", type=float, nargs="+", default=(8, 12))
    parser.add_argument("--factors", type=float, nargs="+", default=(1.0,))
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    is_tuning = arguments.what == "tune"
    seeds = TUNING_SEEDS if is_tuning else range(arguments.seeds)
    torch.backends.cudnn.benchmark = True
    result: dict[str, Any] = {"goal": GOAL, "batch_size": BATCH_SIZE, "seconds_to_compile": {}, "runs": []}
    for width, patch in product(arguments.widths, arguments.patches):
        torch._dynamo.reset()  # it compiles a function for so many shapes only
        start = time.perf_counter()
        one_run(99, width, patch, 1, is_tuning=is_tuning)
        seconds = time.perf_counter() - start
        result["seconds_to_compile"][f"{width}, {patch}"] = seconds
        print(f"width {width}, patch {patch}: {seconds:.1f} s for the first epoch, most of it compiling", flush=True)
        for epochs, factor in product(arguments.epochs, arguments.factors):
            runs = [one_run(seed, width, patch, epochs, factor=factor, is_tuning=is_tuning) for seed in seeds]
            print(summary(runs), flush=True)
            result["runs"] += runs
            record(f"gpu_fashion_{arguments.what}", result)


if __name__ == "__main__":
    main()
