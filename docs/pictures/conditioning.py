"""Two ill-conditioned equations, and the terms of a step's change of the loss."""

import numpy as np

from cyclewise.drawing import Chart, Line, Mark

RIGHT = np.array([200.0, -200.0])


def matrix(entry: float) -> np.ndarray:
    """Return the equations' matrix with `entry` in its upper left corner."""
    return np.array([[entry, -201.0], [-800.0, 401.0]])


def solution(entry: float) -> np.ndarray:
    """Return the exact solution, by Cramer's rule."""
    determinant = entry * 401.0 - 201.0 * 800.0
    return np.array([200.0 * 401.0 - 201.0 * 200.0, 200.0 * 800.0 - 200.0 * entry]) / determinant


def step_terms(share: float) -> tuple[float, float, float]:
    """Return gain, cost and change of a step from (1, 1) on (x² + 100 y²)/2, the rate a share of the limit 2/100."""
    hessian = np.diag([1.0, 100.0])
    gradient = hessian @ np.ones(2)
    rate = share * 2.0 / 100.0
    gain, cost = rate * gradient @ gradient, rate**2 / 2 * gradient @ hessian @ gradient
    return float(gain), float(cost), float(cost - gain)


def charts() -> list[Chart]:
    """Describe the picture."""
    parallel = 201.0 * 800.0 / 401.0  # where there is no solution
    beside = np.geomspace(1e-4, 0.6, 300)
    entries = sorted([399.9, 400.0, 401.0, *(parallel - 2 * beside)[:280], *(parallel + beside)])
    first = [abs(float(solution(entry)[0])) for entry in entries]
    shares = np.linspace(0.0, 1.3, 131)
    terms = np.array([step_terms(share) for share in shares])
    return [
        Chart(
            "First number of the solution, by one entry of the matrix",
            "entry in the upper left corner",
            "its size (log scale)",
            [Line("size of the first number", entries, first)],
            marks=[Mark("400: -100", 400.0, role="muted"), Mark("401: 40,000", 401.0)],
            y_log=True,
        ),
        Chart(
            "What a step along the gradient does",
            "rate, as a share of 2 / largest curvature",
            "change of the loss",
            [
                Line("in all", shares.tolist(), terms[:, 2].tolist()),
                Line("the slope gives: -e g'g", shares.tolist(), (-terms[:, 0]).tolist(), role="secondary"),
                Line("curvature takes: e²/2 g'Hg", shares.tolist(), terms[:, 1].tolist(), role="muted", dashed=True),
            ],
        ),
    ]


def caption() -> str:
    """Say what the picture shows."""
    (a, b), (c, d) = solution(400.0), solution(401.0)
    return (
        f"Above: ({a:.0f}, {b:.0f}) with 400, ({c:.0f}, {d:.0f}) with 401. Below: in a valley of condition number 100 "
        f"a step at half the limit takes {-step_terms(0.5)[2]:.0f} off the loss, at a quarter of it "
        f"{-step_terms(0.25)[2]:.0f}, and above the limit it adds to it."
    )
