"""The gallery of classic test functions: swarm, Nevergrad's own choice, and gradient descent from random starts.

    python -m docs.test_functions

writes ``docs/pictures/test_functions/*.png`` and the tables in ``docs/test-functions.md``. Every method has 300
evaluations: the descent has them as 15 random starts of 20 steps, with the best rate of a grid for each function.
"""

import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import cyclewise as cw
from docs.filling import fill

FOLDER = Path(__file__).parent
BUDGET, STARTS, SEEDS = 300, 15, (0, 1, 2, 3, 4)
RATES = [10.0**k for k in range(-5, 1)]
FRAMES = (40, 120, 300)
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Classic:
    """A test function of points ``[..., 2]``, on the square ``[-reach, reach]²``, with its lowest value.

    Attributes:
        name: what it is called.
        function: the function.
        reach: half a side of the square.
        lowest: the value at the global minimum.
        minimum: where that lies.
    """

    name: str
    function: Function
    reach: float
    lowest: float
    minimum: tuple[float, float]


def sphere(x: Tensor) -> Tensor:
    """Return the sum of squares."""
    return (x**2).sum(-1)


def rosenbrock(x: Tensor) -> Tensor:
    """Return Rosenbrock's banana, a curved valley."""
    return 100 * (x[..., 1] - x[..., 0] ** 2) ** 2 + (1 - x[..., 0]) ** 2


def rastrigin(x: Tensor) -> Tensor:
    """Return Rastrigin's bowl of valleys."""
    return (10 + x**2 - 10 * torch.cos(2 * math.pi * x)).sum(-1)


def ackley(x: Tensor) -> Tensor:
    """Return Ackley's plain with a hole."""
    root = torch.sqrt((x**2).mean(-1) + 1e-24)
    return -20 * torch.exp(-0.2 * root) - torch.exp(torch.cos(2 * math.pi * x).mean(-1)) + 20 + math.e


def griewank(x: Tensor) -> Tensor:
    """Return Griewank's wide bowl with ripples."""
    scale = torch.sqrt(torch.tensor([1.0, 2.0], dtype=x.dtype))
    return (x**2).sum(-1) / 4000 - torch.cos(x / scale).prod(-1) + 1


def levy(x: Tensor) -> Tensor:
    """Return Levy's function number 13 in its usual form."""
    w = 1 + (x - 1) / 4
    first, last = w[..., 0], w[..., 1]
    return (
        torch.sin(math.pi * first) ** 2
        + (first - 1) ** 2 * (1 + 10 * torch.sin(math.pi * first + 1) ** 2)
        + (last - 1) ** 2 * (1 + torch.sin(2 * math.pi * last) ** 2)
    )


def styblinski_tang(x: Tensor) -> Tensor:
    """Return Styblinski and Tang's four valleys of different depth."""
    return (x**4 - 16 * x**2 + 5 * x).sum(-1) / 2


CLASSICS = [
    Classic("Sphere", sphere, 5.0, 0.0, (0.0, 0.0)),
    Classic("Rosenbrock", rosenbrock, 2.048, 0.0, (1.0, 1.0)),
    Classic("Rastrigin", rastrigin, 5.12, 0.0, (0.0, 0.0)),
    Classic("Ackley", ackley, 32.0, 0.0, (0.0, 0.0)),
    Classic("Griewank", griewank, 100.0, 0.0, (0.0, 0.0)),
    Classic("Levy", levy, 10.0, 0.0, (1.0, 1.0)),
    Classic("Styblinski-Tang", styblinski_tang, 5.0, -78.33233140754282, (-2.903534, -2.903534)),
]


class Point(nn.Module):
    """A model of two numbers, somewhere in the square but not at its middle."""

    def __init__(self, classic: Classic) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([0.55, -0.62], dtype=torch.float64) * classic.reach)


class Square(cw.Space):
    """All of the square, whatever the model starts at."""

    def __init__(self, classic: Classic) -> None:
        from cyclewise.start import Coordinates

        self.model = Point(classic)
        self.reach = classic.reach
        self.variables = (Coordinates("x", 2),)

    def untouched(self) -> dict:
        """Return the start's own place."""
        return {"x": tuple((self.model.x.detach() / self.reach).tolist())}

    def place(self, model: nn.Module, point: dict) -> None:
        """Move the point."""
        model.x.copy_(torch.tensor(point["x"], dtype=torch.float64) * self.reach)

    def describe(self) -> str:
        """Return what varies."""
        return f"a point in a square of side {2 * self.reach:g}"


def searched(classic: Classic, algorithm: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points ``[n, 2]`` that an algorithm asked for, and their values."""

    def objective(model: nn.Module) -> float:
        return float(classic.function(model.x.detach()))

    found = cw.search_start(Square(classic), objective, algorithm=algorithm, budget=BUDGET, seed=seed, progress=False)
    return np.array(found.positions) * classic.reach, np.array([e.loss for e in found.evaluations])


def descended(classic: Classic, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and values of gradient descent from random starts, in the order of the steps."""
    generator = torch.Generator().manual_seed(seed)
    x = (2 * torch.rand(STARTS, 2, generator=generator, dtype=torch.float64) - 1) * classic.reach
    points, values = [], []
    for _ in range(BUDGET // STARTS):
        x.requires_grad_(True)
        value = classic.function(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        points.append(x.detach().clone())
        values.append(value.detach())
        x = (x.detach() - rate * gradient).clamp(-classic.reach, classic.reach)
    return torch.cat(points).numpy(), torch.nan_to_num(torch.cat(values), nan=math.inf).numpy()


def best_rate(classic: Classic) -> float:
    """Return the rate of the grid that descends lowest on seeds of its own."""
    return min(RATES, key=lambda rate: statistics.median(descended(classic, rate, 100 + s)[1].min() for s in SEEDS))


def methods(classic: Classic, seed: int, rate: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return points and values of each method."""
    return {
        "swarm (PSO)": searched(classic, "PSO", seed),
        "NGOpt": searched(classic, "NGOpt", seed),
        "gradient descent": descended(classic, rate, seed),
    }


def draw(classic: Classic, found: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw three frames of each method over the function's contours."""
    import matplotlib.pyplot as plt
    from PIL import Image

    grid = torch.linspace(-classic.reach, classic.reach, 160, dtype=torch.float64)
    values = classic.function(torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1)).numpy()
    height = np.log10(values - classic.lowest + 1e-3 * (values.max() - classic.lowest))
    figure, axes = plt.subplots(len(found), len(FRAMES), figsize=(6.6, 6.6), sharex=True, sharey=True,
                                layout="constrained")  # fmt: skip
    for row, (name, (points, losses)) in zip(axes, found.items(), strict=True):
        for panel, end in zip(row, FRAMES, strict=True):
            low, high = height.min(), height.max()
            # The upper half of the colours is left to the points.
            panel.pcolormesh(
                grid.numpy(), grid.numpy(), height, cmap="Greys", vmin=low, vmax=2 * high - low, shading="nearest"
            )
            recent = points[max(0, end - 40) : end]
            panel.plot(*recent.T, ".", color="#0072b2", markersize=4)
            panel.plot(*points[np.argmin(losses[:end])], "o", color="#d55e00", markersize=6, fillstyle="none")
            panel.plot(*classic.minimum, "+", color="black", markersize=9)
            panel.set_title(f"{name}, {end}: {losses[:end].min() - classic.lowest:.2g}", fontsize=8)
            panel.tick_params(labelsize=7)
    figure.savefig(path, dpi=72)
    plt.close(figure)
    with Image.open(path) as image:  # a palette of 64 colours: half the size, and nothing to see of it
        small = image.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def table() -> tuple[str, dict[str, dict[str, list[float]]]]:
    """Draw all pictures and return the table, and the figures behind it."""
    rows = ["| function | rate of the descent | swarm (PSO) | NGOpt | gradient descent |", "|---|---|---|---|---|"]
    figures: dict[str, dict[str, list[float]]] = {}
    (FOLDER / "pictures" / "test_functions").mkdir(exist_ok=True)
    for classic in CLASSICS:
        rate = best_rate(classic)
        runs = [methods(classic, seed, rate) for seed in SEEDS]
        slug = classic.name.lower().replace("-", "_")
        draw(classic, runs[0], FOLDER / "pictures" / "test_functions" / f"{slug}.png")
        ends = {name: [max(0.0, float(run[name][1].min() - classic.lowest)) for run in runs] for name in runs[0]}
        figures[classic.name] = ends
        cells = [f"{statistics.median(e):.2g} ({min(e):.1g} – {max(e):.1g})" for e in ends.values()]
        rows.append(f"| {classic.name} | {rate:g} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows), figures


def main() -> None:
    """Write the pictures and the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    text, _ = table()
    page = FOLDER / "test-functions.md"
    page.write_text(fill(page.read_text(), {"table": text}))


if __name__ == "__main__":
    main()
