"""Loaders and data sets of somebody's own that shuffle an order in place get it back."""

import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import IterableDataset

import cyclewise as cw
from cyclewise.state import preserve
from tests.range_test.tasks import make_task

INPUTS = torch.randn(320, 10, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, :3].argmax(1)


class Shuffling:
    """Batches in an order that is shuffled in place at the beginning of each pass."""

    def __init__(self, order, shuffle):
        self.order, self.shuffle = order, shuffle

    def __len__(self):
        return 10

    def __iter__(self):
        self.shuffle(self.order)
        for i in range(0, 320, 32):
            rows = torch.as_tensor(self.order[i : i + 32])
            yield INPUTS[rows], TARGETS[rows]


class ShufflingSet(Shuffling, IterableDataset):
    """The same as a data set that yields batches."""


def mix(order):
    order.copy_(order[torch.randperm(len(order))])


ORDERS = {
    "array": lambda: (np.arange(320), np.random.default_rng(0).shuffle),
    "tensor": lambda: (torch.arange(320), mix),
    "long list": lambda: ([i % 320 for i in range(10_240)], random.Random(0).shuffle),
}


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("loader_type", [Shuffling, ShufflingSet])
def test_a_range_test_leaves_an_order_that_is_shuffled_in_place(kind, loader_type):
    loader = loader_type(*ORDERS[kind]())
    order, before = loader.order, [int(row) for row in loader.order]
    model, optimizer, _ = make_task()
    assert cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=40).num_steps > 0
    assert loader.order is order
    assert [int(row) for row in loader.order] == before


def test_what_did_not_change_is_not_written_to_and_data_are_not_copied():
    order = np.arange(320)
    order.flags.writeable = False
    tokens, features = np.zeros(2**21 + 1, np.int64), np.zeros(8)
    with preserve(data=[{"order": order, "tokens": tokens, "features": features}]):
        tokens[0], features[0] = 1, 1.0
    assert (tokens[0], features[0]) == (1, 1.0)


def test_many_rows_of_whole_numbers_are_data():
    order = np.arange(320)
    texts = [np.zeros(2**20, np.int64) for _ in range(9)]
    with preserve(data=[{"texts": texts, "order": order}]):
        order[0] = 1
        for text in texts:
            text[0] = 1
    assert order[0] == 0
    assert texts[-1][0] == 1
