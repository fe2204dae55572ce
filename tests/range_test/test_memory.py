"""What a range test holds beside the training itself: one copy of parameters, buffers and optimizer state."""

import gc
import itertools

import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw

SIZE = 512


def live_bytes():
    """Return the bytes of all tensors that are alive, each storage once."""
    gc.collect()
    storages = {}
    for item in gc.get_objects():
        if type(item) in (torch.Tensor, nn.Parameter) and item.layout == torch.strided:
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_at_most_one_extra_copy_is_held():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.Linear(SIZE, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = [(torch.randn(16, SIZE), torch.randint(4, (16,))) for _ in range(20)]
    F.cross_entropy(model(loader[0][0]), loader[0][1]).backward()
    optimizer.step()
    optimizer.zero_grad()
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    state = sum(buffer.nbytes for buffer in model.buffers()) + sum(
        value.nbytes for values in optimizer.state.values() for value in values.values()
    )
    before, held = live_bytes(), []
    calls = itertools.count()

    def loss_fn(outputs, targets):
        if next(calls) % 25 == 1:
            held.append(live_bytes())
        return F.cross_entropy(outputs, targets)

    result = cw.lr_find(model, optimizer, loss_fn, loader)
    assert result.num_steps > 50
    # The gradients of a step in progress are those of training, and batches and activations are small.
    assert len(held) >= 4
    assert parameters + state < max(held) - before < 1.1 * (parameters + state) + parameters
    assert live_bytes() < before + 0.1 * parameters
