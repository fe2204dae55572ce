"""The task: a subset of Fashion-MNIST at half its resolution, and a residual network of 20,000 parameters.

With a GPU it is all of Fashion-MNIST at its own resolution, and a network of 78,000 parameters.
"""

from typing import Any

import torch
from torch.nn.functional import avg_pool2d

import cyclewise as cw
from cyclewise.experiments.fashion import fashion_mnist, residual_network

NUM_TRAIN, NUM_TEST, BATCH_SIZE = 4096, 2000, 64
ALL = 60_000


def make_learner(seed: int, *, num_train: int = NUM_TRAIN) -> cw.Learner:
    """Return an untrained Learner; the seed draws the weights and the order of the batches.

    Args:
        seed: see above.
        num_train: training images to use; all of them stand for the whole task, on the GPU where there is one.
    """
    images = fashion_mnist()
    is_whole = num_train == ALL
    num_test = len(images.test_targets) if is_whole else NUM_TEST
    device = torch.device("cuda" if is_whole and torch.cuda.is_available() else "cpu")

    def loader(inputs: torch.Tensor, targets: torch.Tensor, count: int, batch_size: int) -> Any:
        chosen = inputs[:count] if is_whole else avg_pool2d(inputs[:count], 2)
        return cw.Data.from_arrays(chosen.to(device), targets[:count].to(device), valid_fraction=0.0,
                                   batch_size=batch_size, seed=seed).train_loader  # fmt: skip

    data = cw.Data(
        loader(images.train_inputs, images.train_targets, num_train, BATCH_SIZE),
        loader(images.test_inputs, images.test_targets, num_test, 500),
    )
    torch.manual_seed(seed)
    model = residual_network((16, 32, 64) if is_whole else (16, 32), stem_stride=1 if is_whole else 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return cw.Learner(model, data, optimizer=optimizer, metrics={"accuracy": cw.accuracy})


def setting(num_train: int) -> dict[str, str]:
    """Return what is needed to repeat it."""
    if num_train == ALL:
        images = "Fashion-MNIST, all 60,000 training and 10,000 test images of 28 x 28"
        network = "a residual network with blocks of 16, 32 and 64 channels and batch normalisation, 77,754 parameters"
    else:
        images = f"Fashion-MNIST, the first {num_train} training and {NUM_TEST} test images, averaged down to 14 x 14"
        network = "a residual network with blocks of 16 and 32 channels and batch normalisation, 19,706 parameters"
    return {
        "data": images,
        "network": network,
        "optimizer": f"SGD, momentum 0.9, weight decay 5e-4, batches of {BATCH_SIZE}",
    }
