"""The task: a subset of Fashion-MNIST at half its resolution, and a residual network of 20,000 parameters."""

import torch
from torch.nn.functional import avg_pool2d

import cyclewise as cw
from cyclewise.experiments.fashion import fashion_mnist, residual_network

NUM_TRAIN, NUM_TEST, BATCH_SIZE = 4096, 2000, 64
STEPS_PER_EPOCH = NUM_TRAIN // BATCH_SIZE
SETTING = {
    "data": f"Fashion-MNIST, the first {NUM_TRAIN} training and {NUM_TEST} test images, averaged down to 14 x 14",
    "network": "a residual network with blocks of 16 and 32 channels and batch normalisation, 19,706 parameters",
    "optimizer": f"SGD, momentum 0.9, weight decay 5e-4, batches of {BATCH_SIZE}",
}


def make_learner(seed: int) -> cw.Learner:
    """Return an untrained Learner; the seed draws the weights and the order of the batches."""
    images = fashion_mnist()
    train, test = (
        cw.Data.from_arrays(avg_pool2d(inputs[:count], 2), targets[:count], valid_fraction=0.0,
                            batch_size=BATCH_SIZE if is_train else 500, seed=seed).train_loader
        for inputs, targets, count, is_train in (
            (images.train_inputs, images.train_targets, NUM_TRAIN, True),
            (images.test_inputs, images.test_targets, NUM_TEST, False),
        )
    )  # fmt: skip
    torch.manual_seed(seed)
    model = residual_network((16, 32), stem_stride=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return cw.Learner(model, cw.Data(train, test), optimizer=optimizer, metrics={"accuracy": cw.accuracy})
