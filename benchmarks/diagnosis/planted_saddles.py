"""Troubles of starting points that lie on a saddle: nothing of the first order leads away."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from benchmarks.diagnosis.planted import Build, bowl, images, mse, regression
from benchmarks.diagnosis.subjects import Subject, below_limit, layers, made
from benchmarks.lr_regret import data, models


def doubled_units(
    widths: tuple[int, ...], activation: Callable[[], nn.Module], arrays: Callable[[], tuple[Tensor, Tensor]],
    loss_fn: Any,
) -> Build:  # fmt: skip
    """A net trained to rest, then every hidden unit doubled (Fukumizu and Amari, 2000): a saddle of the wider net."""

    def subject(seed: int) -> Subject:
        small = made(lambda: models.mlp(*widths, activation=activation), loss_fn, arrays(), seed, optimizer=Adam)
        rest(small)
        first, last = layers(small.model)
        wide = models.mlp(widths[0], 2 * widths[1], widths[2], activation=activation)
        outer = layers(wide)
        with torch.no_grad():
            outer[0].weight.copy_(first.weight.repeat(2, 1))
            outer[0].bias.copy_(first.bias.repeat(2))
            share = torch.rand(widths[1], generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.3
            outer[1].weight.copy_(torch.cat([last.weight * share, last.weight * (1 - share)], dim=1))
            outer[1].bias.copy_(last.bias)
        return below_limit(Subject(wide, loss_fn, small.batches, SGD(wide.parameters(), lr=1e-3)), 0.25)

    return subject


def rest(found: Subject, *, num_steps: int = 300) -> None:
    """Minimise the mean loss over the batches until its gradient is all but zero."""
    optimizer = torch.optim.LBFGS(found.weights, max_iter=num_steps, tolerance_grad=1e-9, tolerance_change=1e-14,
                                  history_size=50, line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = found.loss()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    optimizer.zero_grad()


class Product(nn.Module):
    """A chain of linear maps without biases."""

    def __init__(self, *widths: int, scale: float) -> None:
        super().__init__()
        self.maps = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))
        for layer in self.maps:
            nn.init.normal_(layer.weight, std=scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return self.maps(inputs)


def linear_map(num_inputs: int, num_outputs: int, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(512, num_inputs, generator=generator)
    left = torch.randn(num_inputs, rank, generator=generator)
    right = torch.randn(rank, num_outputs, generator=generator)
    noise = 0.1 * torch.randn(512, num_outputs, generator=generator)
    return inputs, inputs @ left @ right / num_inputs**0.5 + noise


def small_product(widths: tuple[int, ...], scale: float, seed_of_data: int) -> Build:
    arrays = linear_map(widths[0], widths[-1], 3, seed_of_data)
    return lambda seed: made(lambda: Product(*widths, scale=scale), mse, arrays, seed, lr=0.01)


def rank_one(widths: tuple[int, int, int], seed_of_data: int) -> Build:
    """A linear net that has learned the first of three directions to rest, and knows nothing of the others."""
    inputs, targets = linear_map(widths[0], widths[2], 3, seed_of_data)

    def subject(seed: int) -> Subject:
        found = made(lambda: Product(*widths, scale=0.0), mse, (inputs, targets), seed, batch_size=64)
        x, y = (torch.cat(parts) for parts in zip(*found.batches, strict=True))
        # The best rank-one map: the first singular direction of the fitted outputs.
        fit = torch.linalg.lstsq(x, y).solution
        direction = torch.linalg.svd(x @ fit, full_matrices=False)[2][0]
        first, second = found.weights
        size = (fit @ direction).norm().sqrt()
        with torch.no_grad():
            first[0] = fit @ direction / size
            second[:, 0] = direction * size
        return below_limit(found, 0.25)

    return subject


def tiny_factors(num_users: int, num_items: int, width: int, seed_of_data: int, scale: float) -> Build:
    """A recommender whose offset is right and whose tables are all but zero."""
    pairs, ratings, _, _ = data.ratings(num_users, num_items, seed=seed_of_data)

    def subject(seed: int) -> Subject:
        found = made(
            partial(NoBiases, num_users, num_items, width, scale), mse, (pairs, ratings), seed, batch_size=128, lr=0.05
        )
        mean = torch.cat([targets for _, targets in found.batches]).mean()
        with torch.no_grad():
            found.weights[0].copy_(mean)
        return found

    return subject


class NoBiases(nn.Module):
    """Matrix factorisation around a mean."""

    def __init__(self, num_users: int, num_items: int, width: int, scale: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.users, self.items = nn.Embedding(num_users, width), nn.Embedding(num_items, width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=scale)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the ratings."""
        return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1) + self.offset


def indefinite(values: Callable[[], Tensor]) -> Build:
    """A quadratic with some negative eigenvalues, almost at its stationary point."""
    made_bowl = bowl(values)

    def subject(seed: int) -> Subject:
        found = made_bowl(seed)
        with torch.no_grad():
            found.weights[0].mul_(1e-4)
        return found

    return subject


def _mixed(*values: float) -> Callable[[], Tensor]:
    return lambda: torch.tensor(values)


VARIANTS: dict[str, dict[str, dict[str, Build]]] = {
    "development": {
        "saddle start": {
            "small linear net": small_product((12, 8, 6), 1e-4, 62),
            "linear net at rank one": rank_one((12, 8, 6), 63),
            "doubled tanh units": doubled_units((8, 3, 1), nn.Tanh, lambda: images(regression(seed=64)), mse),
            "recommender of all but zero tables": tiny_factors(40, 40, 4, 65, 1e-4),
            "indefinite quadratic": indefinite(_mixed(4.0, 3.0, 2.0, 1.0, 0.5, 0.2, -0.3, -1.0)),
        },
    },
    "test": {
        "saddle start": {
            "small three-layer linear net": small_product((10, 8, 8, 5), 1e-2, 82),
            "linear net at rank one": rank_one((16, 6, 8), 83),
            "doubled sigmoid units": doubled_units((6, 4, 1), nn.Sigmoid,
                                                   lambda: images(data.regression(6, noise=0.05, seed=84)), mse),
            "recommender of all but zero tables": tiny_factors(60, 30, 3, 85, 1e-3),
            "indefinite quadratic": indefinite(_mixed(*(0.1 * k for k in range(1, 25)), -0.05, -0.4)),
        },
    },
}  # fmt: skip
