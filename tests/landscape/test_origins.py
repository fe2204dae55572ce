"""What enters a layer: made of the batch, or of parameters alone, as a learned query or first state is."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.origins import is_of_batch

WIDTH = 16


class Query(nn.Module):
    """A learned query looks at a sequence."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.query = nn.Parameter(0.1 * torch.randn(1, 1, WIDTH))
        self.register_buffer("place", torch.randn(1, 1, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, inputs):
        keys = self.first(inputs)
        query = (math.sqrt(WIDTH) * self.query + self.place).expand(len(inputs), -1, -1)
        return self.head(self.attention(query, keys, keys)[0][:, 0])


class FirstState(nn.Module):
    """A recurrent layer with a learned first state."""

    def __init__(self):
        super().__init__()
        self.state = nn.Parameter(0.1 * torch.randn(1, 1, WIDTH))
        self.layer, self.head = nn.GRU(6, WIDTH, batch_first=True), nn.Linear(WIDTH, 3)

    def forward(self, inputs):
        return self.head(self.layer(inputs, self.state.repeat(1, len(inputs), 1))[0][:, -1])


def diagnosed(model):
    torch.manual_seed(1)
    batch = torch.randn(32, 12, 6), torch.randint(3, (32,))
    return cw.diagnose(model, F.cross_entropy, [batch], optimizer=torch.optim.SGD(model.parameters(), lr=0.05))


@pytest.mark.parametrize("make", [Query, FirstState])
def test_what_no_sample_has_a_say_in_is_not_dead(make):
    torch.manual_seed(0)
    diagnosis = diagnosed(make())
    assert diagnosis.findings == ()
    assert [layer.constant_share for layer in diagnosis.layers if layer.name in ("attention", "layer")] == [None]


def test_a_query_does_not_hide_dead_units():
    torch.manual_seed(0)
    model = Query()
    model.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    nn.init.constant_(model.head[0].bias, -100.0)
    assert diagnosed(model).findings[0].kind == "dead_units"


WEIGHT = torch.randn(4, 4, requires_grad=True)
ROW = torch.randn(1, 4, requires_grad=True)
DATA = torch.randn(8, 4)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (ROW.expand(8, -1), False),
        (F.layer_norm(2.0 * ROW + 1.0, (4,)).repeat(8, 1), False),
        (F.linear(ROW, WEIGHT, ROW[0]), False),
        (torch.tanh(ROW @ WEIGHT).expand(8, -1), False),
        (ROW + torch.ones(8, 4), False),
        (torch.tanh(ROW + DATA), True),
        (torch.tanh(ROW * DATA), True),
        (ROW + torch.relu(DATA @ WEIGHT), True),
        (F.linear(DATA, WEIGHT), True),
        (F.embedding(torch.zeros(8, dtype=torch.long), WEIGHT), True),
        (F.gelu(F.conv1d(DATA[:, :, None], WEIGHT[:, :, None]))[:, :, 0], True),
    ],
)
def test_the_graph_tells_whether_the_batch_has_a_say(tensor, expected):
    assert is_of_batch(tensor) is expected
