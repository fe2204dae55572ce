"""A small task to find the rate of."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_task(optimizer_class=torch.optim.SGD, lr=0.1, *, num_samples=320, **options):
    torch.manual_seed(0)
    inputs = torch.randn(num_samples, 10)
    targets = (inputs @ torch.randn(10, 3)).argmax(dim=1)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
    return model, optimizer_class(model.parameters(), lr=lr, **options), loader
