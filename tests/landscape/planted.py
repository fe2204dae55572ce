"""Matrices with a known spectrum, for the tests of everything that estimates one."""

import numpy as np
import torch
from torch import nn

SIZE = 600


def _noise(count, scale, seed=0):
    return np.random.default_rng(seed).normal(size=count) * scale


SPECTRA = {
    "three and minus ten": np.r_[3.0, -10.0, _noise(SIZE - 2, 0.1)],
    "half and half": np.r_[[3.0] * (SIZE // 2), [-10.0] * (SIZE // 2)],
    "evenly spaced": np.linspace(1e-6, 1.0, SIZE),
    "condition 1e6": np.logspace(-6, 0, SIZE),
    "repeated": np.r_[[5.0] * 20, [1.0] * 300, [-2.0] * 3, [0.0] * (SIZE - 323)],
    "twenty of one": np.r_[[1.0] * 20, [0.0] * (SIZE - 20)],
    "twenty of one and noise": np.r_[[1.0] * 20, _noise(SIZE - 20, 1e-3)],
    "semicircle": np.cos(np.linspace(0, np.pi, SIZE)),
    "normal": _noise(SIZE, 1.0),
    "network": np.r_[np.logspace(0, 2, 10), np.abs(_noise(SIZE - 110, 0.5)) ** 3, -np.abs(_noise(100, 0.1))],
}


def matrix(eigenvalues, dtype=torch.float32, seed=0):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = torch.as_tensor(np.asarray(eigenvalues), dtype=torch.float64)
    return ((basis * values) @ basis.T).to(dtype)


class Quadratic(nn.Module):
    """Half of w'Aw: its Hessian is A."""

    def __init__(self, a):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(len(a), dtype=a.dtype))
        self.register_buffer("a", a)

    def forward(self, x):
        return x.mean() * (self.w @ (self.a @ self.w)) / 2.0


def distance(nodes, weights, eigenvalues):
    """Earth mover's distance between point masses and eigenvalues, as a fraction of the eigenvalues' range."""
    nodes, weights, eigenvalues = np.asarray(nodes), np.asarray(weights), np.sort(eigenvalues)
    places = np.sort(np.r_[nodes, eigenvalues])
    ours = np.array([weights[nodes <= place].sum() for place in places])
    theirs = np.searchsorted(eigenvalues, places, side="right") / len(eigenvalues)
    gap = float((np.abs(ours - theirs)[:-1] * np.diff(places)).sum())
    return gap / max(eigenvalues[-1] - eigenvalues[0], 1e-300)
