"""Curves whose readings anybody would make by eye."""

import numpy as np

RATES = np.geomspace(1e-7, 10.0, 100)


def curve(centre, *, edge, depth=1.5, start=2.3, noise=0.0, seed=0):
    """A loss that falls around `centre` and blows up beyond `edge`."""
    decades = np.log10(RATES)
    fall = depth / (1.0 + np.exp(-6.0 * (decades - np.log10(centre))))
    blow_up = np.where(RATES > edge, 40.0 * (decades - np.log10(edge)) ** 2, 0.0)
    return start - fall + blow_up + noise * np.random.default_rng(seed).standard_normal(len(RATES))
