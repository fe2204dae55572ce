"""A small model of every kind of layer, batches for it and the objective over them, for the tests of derivatives."""

import torch
import torch.nn.functional as F
from torch import nn

from cyclewise.landscape.objective import Objective

CLASSES = 3


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=dropout, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, tokens):
        return self.head(self.layer(self.embedding(tokens)).mean(1))


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 12)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        q, k, v = self.query(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(2, 3, batch_first=True)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))[:, :CLASSES]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x, targets):
        return {"loss": F.cross_entropy(self.linear(x).tanh(), targets)}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(4, 4, CLASSES)

    def forward(self, a, b):
        return self.bilinear(a, b).tanh()


def frozen():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    model[0].weight.requires_grad_(False)
    return model


def seen_batchnorm():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES))
    for _ in range(3):
        model(torch.randn(8, 4) + 1.0)
    return model


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "frozen": frozen,
    "tied": Tied,
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, CLASSES)),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "seen batch norm": seen_batchnorm,
    "dropout": lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Dropout(0.5), nn.Linear(9, CLASSES)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(18, CLASSES)
    ),
    "attention": Attention,
    "attention, dropout": lambda: Attention(dropout=0.2),
    "fused attention": Fused,
    "rnn": lambda: Recurrent(nn.RNN),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "dict": Named,
    "two inputs": Pair,
}


def batches_for(name):
    batches = []
    for _ in range(2):
        x, targets = torch.randn(6, 4), torch.randint(CLASSES, (6,))
        if name.startswith("attention"):
            x = torch.randint(7, (6, 3))
        elif name == "fused attention":
            x = torch.randn(6, 3, 4)
        elif name in ("rnn", "lstm", "gru"):
            x = torch.randn(6, 5, 2)
        if name == "dict":
            batches.append({"x": x, "targets": targets})
        elif name == "two inputs":
            batches.append((x, torch.randn(6, 4), targets))
        else:
            batches.append((x, targets))
    return batches


def make(name, **settings):
    model = MODELS[name]()
    loss_fn = None if name == "dict" else F.cross_entropy
    return model, Objective(model, loss_fn, batches_for(name), **settings)
