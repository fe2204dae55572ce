"""Sparse tensors are given back too, whatever was done to their indices and values."""

import pytest
import torch
from torch import nn

from cyclewise.state import Snapshot, preserve

# Also that of sparse gradients, which torch makes without saying whether they are checked.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|BSC|invariant)")


def coo(values=(1.0, 2.0), places=(0, 2), *, is_coalesced=False):
    tensor = torch.sparse_coo_tensor([list(places)], torch.tensor(values), (4,), check_invariants=True)
    return tensor.coalesce() if is_coalesced else tensor


def swap(tensor):
    tensor.data = coo((4.0, 4.0, 4.0), (0, 1, 2))


WRITES = {
    "copy": lambda tensor: tensor.copy_(coo((5.0, 6.0))),
    "other places": lambda tensor: tensor.copy_(coo((5.0, 6.0, 7.0), (1, 2, 3))),
    "mul": lambda tensor: tensor.mul_(3.0),
    "add": lambda tensor: tensor.add_(coo((9.0,), (1,))),
    "zero": lambda tensor: tensor.zero_(),
    "values": lambda tensor: tensor._values().mul_(3.0),
    "indices": lambda tensor: tensor._indices().add_(1),
    "swap": swap,
}


def bits(tensor):
    return tensor._indices().tolist(), tensor._values().tolist(), tensor.is_coalesced(), tensor._values().data_ptr()


@pytest.mark.parametrize("is_coalesced", [True, False])
@pytest.mark.parametrize("write", WRITES)
def test_sparse_tensors_come_back(write, is_coalesced):
    tensor = coo(is_coalesced=is_coalesced)
    before = bits(tensor)
    snapshot = Snapshot([tensor])
    for _ in range(2):
        WRITES[write](tensor)
        assert bits(tensor) != before
        snapshot.restore()
        assert bits(tensor) == before


def test_buffers_and_optimizer_state_come_back():
    layer = nn.Linear(2, 2)
    layer.register_buffer("graph", torch.eye(3).to_sparse())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    state = optimizer.state[layer.weight] = {"seen": coo()}
    with preserve(layer, optimizer):
        layer.graph.mul_(2.0)
        state["seen"].add_(coo((9.0,), (3,)))
    assert torch.equal(layer.graph.to_dense(), torch.eye(3))
    assert state["seen"].to_dense().tolist() == [1.0, 0.0, 2.0, 0.0]


def test_gradients_come_back():
    layer = nn.Embedding(4, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    gradient = layer.weight.grad
    with preserve(layer):
        layer(torch.tensor([2, 3])).sum().backward()
        assert layer.weight.grad.to_dense().sum() == 6.0
    assert layer.weight.grad is gradient
    assert gradient.to_dense().tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc])
@pytest.mark.parametrize("write", ["values", "swap"])
def test_compressed_tensors_come_back(layout, write):
    def made(dense):
        return dense.to_sparse(layout=layout, blocksize=(2, 2) if "bs" in str(layout) else None)

    tensor = made(torch.eye(4))
    snapshot = Snapshot([tensor])
    if write == "values":
        tensor.values().mul_(3.0)
    else:
        tensor.data = made(torch.ones(4, 4))
    snapshot.restore()
    assert torch.equal(tensor.to_dense(), torch.eye(4))
    assert tensor.layout is layout
