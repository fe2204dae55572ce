"""A place in a loader is taken up only with the random number generators that it was saved with."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from cyclewise import CheckpointError
from cyclewise.training.place import Place


class Noisy(Dataset):
    def __init__(self, generator):
        self.generator = generator

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor(float(index))


def place(generator):
    return Place(DataLoader(Noisy(generator), batch_size=2, shuffle=True, generator=torch.Generator()))


def test_bits_that_a_data_set_draws_itself_are_taken_up_too():
    bits = np.random.PCG64(0)
    bits.random_raw()
    state = place(bits).state_dict()
    expected = bits.random_raw()
    other = np.random.PCG64(1)
    place(other).load_state_dict(state)
    assert other.random_raw() == expected


def test_other_generators_are_refused_by_their_kinds():
    state = place(np.random.default_rng(0)).state_dict()
    place(np.random.default_rng(1)).load_state_dict(state)
    with pytest.raises(CheckpointError) as caught:
        place(None).load_state_dict(state)
    assert str(caught.value) == (
        "train_loader must hold the random number generators of the saved run, 2 (torch's, NumPy's), got 1 (torch's); "
        "pass the same data, or take weights and optimizer alone with learn.load(directory)"
    )
