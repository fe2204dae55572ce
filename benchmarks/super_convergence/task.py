"""The task: a subset of Fashion-MNIST at half its resolution, and a residual network of 20,000 parameters.

From 16,384 images on the network has 77,000 parameters. All of Fashion-MNIST is taken at its own resolution, in larger
batches, on a GPU where there is one.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import cyclewise as cw
from cyclewise.experiments.fashion import fashion_mnist, residual_network

NUM_TRAIN, LARGER, ALL = 4096, 16_384, 60_000


def num_test(num_train: int) -> int:
    """Return how many test images go with as many training images."""
    return 10_000 if num_train == ALL else 5000 if num_train >= LARGER else 2000


def batch_size(num_train: int) -> int:
    """Return the size of the training batches that goes with as many images."""
    return 500 if num_train == ALL else 64  # divides both sets: one shape to compile


def network(num_train: int) -> nn.Sequential:
    """Return the network that goes with as many training images."""
    if num_train == ALL:
        return residual_network((32, 64, 128), stem_stride=2)
    return residual_network((32, 64) if num_train >= LARGER else (16, 32), stem_stride=2)


def make_learner(seed: int, *, num_train: int = NUM_TRAIN) -> cw.Learner:
    """Return an untrained Learner; the seed draws the weights and the order of the batches.

    Args:
        seed: see above.
        num_train: training images to use; all of them stand for the whole task, on the GPU where there is one.
    """
    images = fashion_mnist()
    is_whole = num_train == ALL
    device = torch.device("cuda" if is_whole and torch.cuda.is_available() else "cpu")

    def loader(inputs: torch.Tensor, targets: torch.Tensor, count: int, batch_size: int) -> Any:
        chosen = inputs[:count] if is_whole else avg_pool2d(inputs[:count], 2)
        return cw.Data.from_arrays(chosen.to(device), targets[:count].to(device), valid_fraction=0.0,
                                   batch_size=batch_size, seed=seed).train_loader  # fmt: skip

    data = cw.Data(
        loader(images.train_inputs, images.train_targets, num_train, batch_size(num_train)),
        loader(images.test_inputs, images.test_targets, num_test(num_train), 500),
    )
    torch.manual_seed(seed)
    model = network(num_train).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    options: dict[str, Any] = {}
    if device.type == "cuda":
        options = {"mixed_precision": "bf16", "compile": {"mode": "reduce-overhead", "dynamic": False}}
    return cw.Learner(model, data, optimizer=optimizer, metrics={"accuracy": cw.accuracy}, **options)


def setting(num_train: int) -> dict[str, str]:
    """Return what is needed to repeat it."""
    images = f"the first {num_train} training and {num_test(num_train)} test images, averaged down to 14 x 14"
    if num_train == ALL:
        images = "all 60,000 training and 10,000 test images of 28 x 28"
    widths = "32, 64 and 128" if num_train == ALL else "32 and 64" if num_train >= LARGER else "16 and 32"
    size = sum(parameter.numel() for parameter in network(num_train).parameters())
    is_on_gpu = num_train == ALL and torch.cuda.is_available()
    return {
        "data": f"Fashion-MNIST, {images}",
        "network": f"a residual network with blocks of {widths} channels and batch normalisation, {size:,} parameters",
        "optimizer": f"SGD, momentum 0.9, weight decay 5e-4, batches of {batch_size(num_train)}"
        f"{', bf16, compiled' if is_on_gpu else ''}",
    }
