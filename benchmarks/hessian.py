"""What Hessian products, the sharpness and the spectral density cost, here and in PyHessian and curvlinops, in one run.

    OMP_NUM_THREADS=1 python benchmarks/hessian.py [--rounds 7]

On one thread, in turns, the figures being medians over the rounds:

- products: each form of `landscape/hvp.py`, curvlinops' and PyHessian's, in gradient evaluations (forward and backward
  over the same batch), on networks of five kinds; building a graph to keep is given apart;
- columns: one column of the dense Hessian of a model of a few hundred numbers, all columns being made at once;
- sharpness: seconds until the largest eigenvalue is right to 1 %. Ours stops by itself, asked for 1 %. PyHessian stops
  by itself, too, at each of several tolerances (1e-3 is its default); the loosest at which it is right to 1 % in
  every run on every network, as ours is, gives the same accuracy. It is timed, too, with the fewest iterations that
  reach 1 % from that start, which nobody could know beforehand;
- density: earth mover's distance to the exact density, as a fraction of the range, and seconds, at 40 Lanczos steps for
  both, on networks small enough for the dense Hessian; curvlinops finds the boundaries of the spectrum before.

PyHessian's own density fails on today's torch. Networks are trained for 40 steps first, for the sharpness also for 400,
and batch norm normalises by its running statistics, as PyHessian has it. The peers want an environment of their own:

    pip install pyhessian curvlinops-for-pytorch
"""

import argparse
import importlib
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cyclewise.landscape.density import quadrature
from cyclewise.landscape.hvp import Gradient, forward_over_reverse, reverse_over_reverse
from cyclewise.landscape.lanczos import lanczos, random_start
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.spectrum import sharpness

sys.path.insert(0, str(Path(__file__).parent))
from recording import record

CLASSES = 10
ACCURACY = 0.01
TOLERANCES = (1e-3, 3e-4, 1e-4)
STEPS = 40


class Transformer(nn.Module):
    """Two encoder layers that read 32 of 100 tokens and name a class."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def convolutions(normalised: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride))
        layers += [nn.BatchNorm2d(outputs), nn.GELU()] if normalised else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, CLASSES))


def batch_of(name: str) -> tuple[Tensor, Tensor]:
    """Return inputs and classes that can be learned: which tenth of the batch a fixed projection lies in."""
    if name == "transformer":
        inputs = torch.randint(100, (32, 32))
        features = F.one_hot(inputs, 100).float().mean(1)
    else:
        shapes = {"tiny perceptron": (64, 10), "perceptron": (256, 784), "small perceptron": (200, 20)}
        inputs = torch.randn(shapes.get(name, (64, 3, 32, 32)))
        features = inputs.flatten(1)
    projection = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(1))
    ranks = (features @ projection).argsort().argsort()
    return inputs, ranks * CLASSES // len(ranks)


def network(name: str, num_steps: int = 40) -> tuple[nn.Module, Any]:
    """Return a network after some steps of training, each on a new batch, in eval mode, and another batch."""
    torch.manual_seed(0)
    if name == "tiny perceptron":
        model: nn.Module = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, CLASSES))
    elif name == "perceptron":
        model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))
    elif name.startswith("convolutions"):
        model = convolutions("batch norm" in name)
    elif name == "transformer":
        model = Transformer()
    else:
        model = nn.Sequential(nn.Linear(20, 40), nn.GELU(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(num_steps):
        inputs, targets = batch_of(name)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval(), batch_of(name)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            took = seconds(function)
            if round_:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def products(name: str, rounds: int) -> dict[str, float]:
    """Return the cost of one product in each form, in gradient evaluations."""
    from curvlinops import HessianLinearOperator
    from pyhessian.utils import hessian_vector_product

    model, batch = network(name)
    objective = Objective(model, F.cross_entropy, [batch])
    vector = torch.randn(objective.num_parameters)
    parts, parameters = objective.split(vector), objective.parameters

    def loss() -> Tensor:
        return objective.batch_loss(0)

    kept = Gradient.of(loss(), parameters)
    operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, [batch], check_deterministic=False)
    functions: dict[str, Callable[[], Any]] = {
        "gradient": lambda: torch.autograd.grad(loss(), parameters),
        "kept graph": lambda: kept.product(parts, is_kept=True),
        "building it": lambda: Gradient.of(loss(), parameters),
        "reverse over reverse": lambda: reverse_over_reverse(loss(), parameters, parts),
        "forward over reverse": lambda: forward_over_reverse(model, loss, objective.named, parts),
        "as called": lambda: objective.product(vector),
        "PyHessian": lambda: hessian_vector_product(kept.values, parameters, parts),
        "curvlinops": lambda: operator @ vector,
    }
    expected = objective.product(vector)
    for form in ("kept graph", "reverse over reverse", "forward over reverse"):
        assert torch.allclose(objective.flatten(functions[form]()), expected, rtol=1e-3, atol=1e-5)
    times = in_turns(functions, 3 * rounds)
    gradient = times.pop("gradient")
    return {"gradient_seconds": gradient, **{form: took / gradient for form, took in times.items()}}


def columns(widths: tuple[int, int, int], num_batches: int, rounds: int) -> dict[str, float]:
    """Return what a column of the dense Hessian costs in gradient evaluations, all columns made at once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(*widths[:2]), nn.Tanh(), nn.Linear(*widths[1:]))
    batches = [(torch.randn(64, widths[0]), torch.randn(64, widths[2])) for _ in range(num_batches)]
    objective = Objective(model, F.mse_loss, batches)
    size = objective.num_parameters
    times = in_turns({"gradient": objective.gradient, "all": lambda: objective.products(torch.eye(size))}, 3 * rounds)
    return {"numbers": size, "batches": num_batches, "column": times["all"] / size / times["gradient"]}


def top(objective: Objective) -> float:
    """Return the largest eigenvalue, far closer than anybody is asked for."""
    start = random_start(
        objective.num_parameters, dtype=objective.dtype, device=objective.device,
        generator=torch.Generator().manual_seed(99),
    )  # fmt: skip
    return lanczos(objective.product, start, num_steps=min(80, objective.num_parameters)).pair(-1).value


def power_iteration(model: nn.Module, batches: list[Any], seed: int, **settings: Any) -> float:
    """Return PyHessian's largest eigenvalue from building its object on; one batch has its graph kept, as it does."""
    from pyhessian import hessian

    torch.manual_seed(seed)
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    value = hessian(model, nn.CrossEntropyLoss(), cuda=False, **data).eigenvalues(top_n=1, **settings)[0][0]
    model.zero_grad()
    return float(value)


def ours(model: nn.Module, batches: list[Any], seed: int) -> float:
    """Return our largest eigenvalue, from building its objective on."""
    return sharpness(Objective(model, F.cross_entropy, batches), tolerance=ACCURACY, seed=seed).value


def fewest_iterations(model: nn.Module, batches: list[Any], seed: int, truth: float) -> int:
    """Return how many power iterations reach the accuracy, from the estimates of a long run."""
    theirs: Any = importlib.import_module("pyhessian.hessian")  # the package names its class like this module
    estimates: list[float] = []
    own = theirs.group_product

    def product(left: Any, right: Any) -> Tensor:
        value = own(left, right)
        estimates.append(float(value))
        return value

    theirs.group_product = product
    try:
        power_iteration(model, batches, seed, maxIter=512, tol=1e-6)
    finally:
        theirs.group_product = own
    reached = [i for i, estimate in enumerate(estimates) if abs(estimate / truth - 1.0) <= ACCURACY]
    return reached[0] + 1 if reached else len(estimates)


def compare_sharpness(name: str, num_steps: int, num_batches: int, rounds: int) -> dict[str, Any]:
    """Return seconds, products and errors of the largest eigenvalue, medians over as many starts as rounds."""
    model, (inputs, targets) = network(name, num_steps)
    batches = list(zip(inputs.chunk(num_batches), targets.chunk(num_batches), strict=True))
    truth = top(Objective(model, F.cross_entropy, batches, dtype=torch.float64))
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(rounds + 1):
        count = fewest_iterations(model, batches, seed, truth)
        timed = {
            "cyclewise": partial(ours, model, batches, seed),
            **{peer(tol): partial(power_iteration, model, batches, seed, maxIter=512, tol=tol) for tol in TOLERANCES},
            "PyHessian, fewest": partial(power_iteration, model, batches, seed, maxIter=count, tol=0.0),
        }
        for who, function in timed.items():
            start = time.perf_counter()
            value = function()
            took = time.perf_counter() - start
            if seed:  # the first round warms up
                row = took, abs(value / truth - 1.0), count if who.endswith("fewest") else 0.0
                rows.setdefault(who, []).append(row)
    medians = {who: statistics.median(row[0] for row in row_list) for who, row_list in rows.items()}
    return {
        "truth": truth,
        "seconds": medians,
        "within_accuracy": {
            who: sum(row[1] <= ACCURACY for row in row_list) / len(row_list) for who, row_list in rows.items()
        },
        "largest_error": {who: max(row[1] for row in row_list) for who, row_list in rows.items()},
        "fewest_iterations": statistics.median(row[2] for row in rows["PyHessian, fewest"]),
        "ratios": {who: medians["cyclewise"] / took for who, took in medians.items()},
    }


def peer(tolerance: float) -> str:
    """Return the name of PyHessian at a tolerance."""
    return f"PyHessian, tol {tolerance:g}"


def summary(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the geometric means of the ratios over the settings, and where PyHessian is as accurate as ours."""
    ways = list(next(iter(settings.values()))["ratios"])
    ratios = {}
    for which in ("", "1 batches", "4 batches"):
        chosen = [found for name, found in settings.items() if name.endswith(which)]
        ratios[which or "all"] = {
            who: math.exp(statistics.mean(math.log(found["ratios"][who]) for found in chosen)) for who in ways
        }
    right = {who: statistics.mean(found["within_accuracy"][who] for found in settings.values()) for who in ways}
    as_accurate = next((tol for tol in TOLERANCES if right[peer(tol)] == 1.0), None)
    return {"ratios": ratios, "right": right, "tolerance_of_the_same_accuracy": as_accurate}


def distance(places: Any, masses: Any, eigenvalues: Any) -> float:
    """Return the earth mover's distance of point masses to eigenvalues, as a fraction of the range."""
    order = np.argsort(places)
    places, masses = np.asarray(places)[order], np.asarray(masses)[order]
    joint = np.sort(np.r_[places, eigenvalues])
    ours = np.r_[0.0, np.cumsum(masses)][np.searchsorted(places, joint, side="right")]
    theirs = np.searchsorted(np.sort(eigenvalues), joint, side="right") / len(eigenvalues)
    return float((np.abs(ours - theirs)[:-1] * np.diff(joint)).sum() / (eigenvalues.max() - eigenvalues.min()))


def compare_density(name: str, rounds: int) -> dict[str, Any]:
    """Return seconds and distances of the density, medians over as many starts as rounds."""
    from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum

    model, batch = network(name)
    exact = Objective(model, F.cross_entropy, [batch], dtype=torch.float64)
    hessian = exact.products(torch.eye(exact.num_parameters, dtype=torch.float64))
    eigenvalues = torch.linalg.eigvalsh((hessian + hessian.T) / 2.0).numpy()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows: dict[str, list[tuple[float, float]]] = {"cyclewise": [], "curvlinops": []}
    for seed in range(rounds + 1):
        masses: dict[str, tuple[Any, Any]] = {}

        def ours(seed: int = seed, masses: dict[str, tuple[Any, Any]] = masses) -> None:
            objective = Objective(model, F.cross_entropy, [batch])
            start = random_start(
                objective.num_parameters, dtype=objective.dtype, device=objective.device,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
            found = quadrature([lanczos(objective.product, start, num_steps=STEPS)])
            masses["cyclewise"] = found.nodes, found.weights

        def theirs(seed: int = seed, masses: dict[str, tuple[Any, Any]] = masses) -> None:
            torch.manual_seed(seed)
            np.random.seed(seed)
            operator = HessianLinearOperator(
                model, nn.CrossEntropyLoss(), parameters, [batch], check_deterministic=False
            )
            grid, density = lanczos_approximate_spectrum(operator, STEPS, num_points=4096, kappa=30.0)
            density = density.double().clamp(min=0.0)
            masses["curvlinops"] = grid.double().numpy(), (density / density.sum()).numpy()

        for who, function in {"cyclewise": ours, "curvlinops": theirs}.items():
            took = seconds(function)
            if seed:
                rows[who].append((took, distance(*masses[who], eigenvalues)))
    return {
        "numbers": len(eigenvalues),
        "seconds": {who: statistics.median(row[0] for row in row_list) for who, row_list in rows.items()},
        "distance": {who: statistics.median(row[1] for row in row_list) for who, row_list in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = ["tiny perceptron", "perceptron", "convolutions", "convolutions, batch norm", "transformer"]
    result: dict[str, Any] = {"products": {}, "columns": [], "sharpness": {}, "density": {}}
    for widths in ((8, 8, 1), (8, 16, 1), (8, 40, 1), (10, 16, 10)):
        for num_batches in (1, 4):
            result["columns"].append(columns(widths, num_batches, rounds))
            print("column of a dense Hessian", result["columns"][-1], flush=True)
    with sdpa_kernel(SDPBackend.MATH):
        for name in names:
            result["products"][name] = products(name, rounds)
            print(name, {form: round(cost, 3) for form, cost in result["products"][name].items()}, flush=True)
        forms = list(result["products"][names[0]])[1:]
        result["geometric_means"] = {
            form: math.exp(statistics.mean(math.log(result["products"][name][form]) for name in names))
            for form in forms
        }
        print({form: round(cost, 2) for form, cost in result["geometric_means"].items()}, flush=True)
        for name in names:
            for num_steps in (40, 400):
                for num_batches in (1, 4):
                    found = compare_sharpness(name, num_steps, num_batches, rounds)
                    result["sharpness"][f"{name}, {num_steps} steps, {num_batches} batches"] = found
                    print(name, num_steps, num_batches, found, flush=True)
        result["sharpness_summary"] = summary(result["sharpness"])
        print(result["sharpness_summary"], flush=True)
        for name in ("tiny perceptron", "small perceptron"):
            result["density"][name] = compare_density(name, rounds)
            print(name, result["density"][name], flush=True)
    record("hessian", result)


if __name__ == "__main__":
    main()
