"""W^t: factors above 1 explode, factors below 1 vanish."""

import numpy as np

from cyclewise.drawing import Chart, Line

RADII = (1.1, 1.0, 0.9)
NUM_STEPS = 100


def step_matrix(radius: float, seed: int = 0) -> np.ndarray:
    """Return a random 16 x 16 matrix whose largest eigenvalue has the absolute value `radius`."""
    matrix = np.random.default_rng(seed).normal(size=(16, 16))
    return radius * matrix / np.abs(np.linalg.eigvals(matrix)).max()


def lengths(radius: float) -> list[float]:
    """Return the length of a random vector after t = 0, 1, … steps, beside its length at first."""
    matrix, vector = step_matrix(radius), np.random.default_rng(1).normal(size=16)
    first, measured = np.linalg.norm(vector), []
    for _ in range(NUM_STEPS + 1):
        measured.append(float(np.linalg.norm(vector) / first))
        vector = matrix @ vector
    return measured


def charts() -> list[Chart]:
    """Describe the picture."""
    steps = list(range(NUM_STEPS + 1))
    lines = [Line(f"largest factor {radius:g}", steps, lengths(radius), role=role)
             for radius, role in zip(RADII, ("primary", "muted", "secondary"), strict=True)]  # fmt: skip
    lines += [Line("1.1^t", steps, [1.1**step for step in steps], dashed=True),
              Line("0.9^t", steps, [0.9**step for step in steps], role="secondary", dashed=True)]  # fmt: skip
    title = "A vector multiplied t times by the same matrix"
    return [Chart(title, "t", "length (log scale)", lines, y_log=True, y_limits=(1e-6, 1e10))]


def caption() -> str:
    """Say what the picture shows."""
    high, same, low = (lengths(radius)[-1] for radius in RADII)
    return (
        f"After {NUM_STEPS} multiplications by a random matrix the vector is {high:.0f} times as long as at first "
        f"where the largest factor is 1.1, {same:.2f} times where it is 1, and {low:.6f} times where it is 0.9. "
        "Dashed: the powers of the factors."
    )
