"""The order of a diagnosis: what is cheap first, then the spectrum, then pictures, as far as the budget goes."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from cyclewise.landscape.cliffs import descend, rates_around
from cyclewise.landscape.costs import LOSS_COST
from cyclewise.landscape.culprit import NotTwiceError, ReentrantError
from cyclewise.landscape.flow import FEWEST_LAYERS, gradient_flow
from cyclewise.landscape.inputs import measure_inputs
from cyclewise.landscape.journey import look_back, start_state
from cyclewise.landscape.limits import stability_limit
from cyclewise.landscape.measurements import Eigenvalue, Estimate, Profile, Signal
from cyclewise.landscape.noise import gradient_noise
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.own_step import FACTORS, NoStepError, displacement
from cyclewise.landscape.plane import PLANE_COST, slice_through
from cyclewise.landscape.positions import position_of
from cyclewise.landscape.recurrence import memory
from cyclewise.landscape.spectrum import Spectrum, spectrum
from cyclewise.landscape.unavailable import Unavailable
from cyclewise.param_groups import read_rates
from cyclewise.velocity import VelocitySGD

# Distances along the directions of extreme curvature, as shares of the one at which it changes the loss by itself.
_SHARES = (-1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, 1.5)
# A weight as initialisation draws it, for models whose weights are all but zero.
_USUAL_WEIGHT = 0.1
# Nine losses, twice where there is batch norm, and a gradient.
_JOURNEY_COST = 8.0
# A point on a line: a loss and a gradient. And the fewest products that show both ends of a spectrum.
_POINT_COST = LOSS_COST + 1.0
_SPECTRUM_COST = 12.0
_NEEDS_A_CURVATURE = (
    "curvature_along_gradient", "best_step", "sharpness", "lambda_min", "trace", "condition_number", "stability_limit",
    "taylor", "own_step", "density",
)  # fmt: skip
_NEEDS_A_LOSS = (
    "gradient_norm", "parameter_norm", "curvature_along_gradient", "best_step", "sharpness", "lambda_min", "trace",
    "condition_number", "noise_scale", "noise_scale_std_error", "stability_limit", "taylor", "lr", "own_step",
    "signal", "flow_factor", "flow_total", "update_factor", "plane", "density", "journey",
)  # fmt: skip
# Products that the limit of an optimizer with a preconditioner may take, and the fewest that say anything.
_LIMIT_PRODUCTS = 15
_FEWEST_PRODUCTS = 4
# Of the loss: a gradient this short is what rounding leaves.
_ALMOST_ZERO = 1e-12


class Examination:
    """One diagnosis in progress.

    Args:
        objective: the mean loss over the batches.
        optimizer: the user's, or None.
        seed: of the random directions.
        budget: gradient evaluations to spend at most.

    Attributes:
        values: what was measured, by attribute of :class:`~cyclewise.landscape.diagnosis.Diagnosis`.
        unavailable: attribute -> why it could not be had.
        details: attribute -> more about that, where there is more to say.
        spent_on: what -> gradient evaluations.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer | None, *, seed: int, budget: float) -> None:
        self.values: dict[str, Any] = {}
        self.unavailable: dict[str, Unavailable] = {}
        self.details: dict[str, str] = {}
        self.spent_on: dict[str, float] = {}
        self._objective = objective
        self._optimizer = optimizer
        self._seed = seed
        self._budget = budget
        self._has_start = False

    def run(self, start: Any, path: Sequence[Any] = ()) -> None:
        """Measure.

        Args:
            start: a model or a state dict, or None.
            path: positions in between, as :func:`~cyclewise.landscape.positions.position_of` takes them.
        """
        objective = self._objective
        self._has_start = start is not None
        with self._charged("loss"):
            loss = objective.loss()
        self.values |= {"loss": loss, "num_parameters": objective.num_parameters}
        if not math.isfinite(loss):
            self.unavailable |= dict.fromkeys(_NEEDS_A_LOSS, Unavailable.LOSS_NOT_FINITE)
            return
        weights = objective.flatten(objective.parameters)
        self.values["parameter_norm"] = float(weights.double().norm())
        with self._charged("inputs"):
            self.values["inputs"] = measure_inputs(objective)
        try:
            with self._charged("gradient and its noise"):
                gradient = objective.gradient()
                self._noise()
        except ReentrantError:
            self._lack(_NEEDS_A_LOSS, Unavailable.REENTRANT)
            return
        self.values["gradient_norm"] = float(gradient.double().norm())
        self._flow()
        found = self._curvature(gradient)
        self._profiles(gradient, found)
        places = [position_of(place, objective, name=f"path[{i}]") for i, place in enumerate(path)]
        if start is None:
            self.unavailable["journey"] = Unavailable.NO_START
        elif self._affords(_JOURNEY_COST, "journey"):
            first = start_state(start, objective)
            self._journey(first, gradient, places)
            places.insert(0, position_of(first, objective, name="start"))
        self._plane(gradient, found, places)

    def _curvature(self, gradient: Tensor) -> Spectrum | None:
        """Measure what needs second derivatives; None where there are none, or the budget does not reach."""
        if self._optimizer is not None:
            self.values["lr"] = max(read_rates(self._optimizer))
        else:
            self.unavailable |= dict.fromkeys(("lr", "own_step", "stability_limit"), Unavailable.NO_OPTIMIZER)
        if not math.isfinite(self.values["gradient_norm"]):
            self._lack(_NEEDS_A_CURVATURE, Unavailable.GRADIENT_NOT_FINITE)
            return None
        try:
            product = self._along_the_gradient(gradient)
            if not bool(torch.isfinite(product).all()):
                self._lack(_NEEDS_A_CURVATURE, Unavailable.CURVATURE_NOT_FINITE)
                return None
            self._taylor(gradient, product)
            self._own_step(gradient)
            return self._spectrum()
        except NotTwiceError as error:
            self._lack(_NEEDS_A_CURVATURE, Unavailable.NOT_TWICE, str(error))
            return None

    def _lack(self, names: Iterable[str], reason: Unavailable, detail: str | None = None) -> None:
        for name in names:
            if self.values.get(name) is None and name not in self.unavailable:
                self.values.pop(name, None)
                self.unavailable[name] = reason
                if detail is not None:
                    self.details[name] = detail

    def _affords(self, cost: float, *names: str) -> bool:
        if self._budget - self._objective.cost >= cost:
            return True
        self._lack(names, Unavailable.BUDGET)
        return False

    def _noise(self) -> None:
        noise = gradient_noise(self._objective)
        self.values["noise_scale"] = noise.noise_scale
        self.values["noise_scale_std_error"] = noise.noise_scale_std_error
        if noise.reason is not None:
            self.unavailable |= {"noise_scale": noise.reason, "noise_scale_std_error": noise.reason}
        elif noise.noise_scale_std_error is None:
            self.unavailable["noise_scale_std_error"] = Unavailable.TWO_PARTS
        if noise.signal is None or noise.variance is None or noise.noise_norm is None or noise.num_samples is None:
            self.unavailable["signal"] = self.unavailable["noise_scale"]
            return
        self.values["layer_noises"] = noise.layers
        low, high = noise.noise_scale_interval or (None, None)
        self.values["signal"] = Signal(
            squared_norm=noise.signal,
            std_error=noise.signal_std_error,
            variance=noise.variance,
            noise_norm=noise.noise_norm,
            batch_size=noise.num_samples / self._objective.num_all_batches,
            num_samples=noise.num_samples,
            lowest_scale=low,
            highest_scale=high,
        )

    def _flow(self) -> None:
        with self._charged("gradient flow by layer"):
            flow = gradient_flow(self._objective)
        self.values |= {
            "layers": flow.layers,
            "flow_factor": flow.per_layer_factor,
            "flow_total": flow.total_factor,
            "update_factor": flow.update_factor,
        }
        reasons = {
            "flow_factor": _no_factor([layer.gradient_norm for layer in flow.layers], Unavailable.FEW_LAYERS),
            "flow_total": Unavailable.NO_OUTPUT_GRADIENT,
            "update_factor": _no_factor([ratio for _, ratio in flow.update_ratios], Unavailable.FEW_WEIGHTS),
        }
        self.unavailable |= {name: reason for name, reason in reasons.items() if self.values[name] is None}
        with self._charged("gradient flow by lag"):
            found = memory(self._objective, seed=self._seed)
        self.values["recurrences"] = found.recurrences
        if found.reason is not None:
            self.unavailable["recurrences"] = found.reason

    def _along_the_gradient(self, gradient: Tensor) -> Tensor:
        with self._charged("curvature along the gradient"):
            product = self._objective.product(gradient)
        along = float(gradient.double() @ product.double())
        if math.isfinite(along):
            self.values["curvature_along_gradient"] = along
            self.values["best_step"] = self.values["gradient_norm"] ** 2 / along if along > 0 else None
            if along <= 0:
                self.unavailable["best_step"] = Unavailable.NOT_CURVED_UP
        return product

    def _taylor(self, gradient: Tensor, product: Tensor) -> None:
        norm = self.values["gradient_norm"]
        if not norm > _ALMOST_ZERO * abs(self.values["loss"]):
            self.unavailable["taylor"] = Unavailable.ZERO_GRADIENT
            return
        rates = rates_around(norm, self.values["curvature_along_gradient"], self.values["parameter_norm"])
        if self._affords(len(rates) * _POINT_COST + _SPECTRUM_COST, "taylor"):
            with self._charged("steps down the gradient"):
                self.values["taylor"] = descend(
                    self._objective, -gradient, rates, gradient=gradient, product=-product, loss=self.values["loss"]
                )

    def _own_step(self, gradient: Tensor) -> None:
        if self._optimizer is None or not self._affords(
            len(FACTORS) * _POINT_COST + self._product_cost() + _SPECTRUM_COST, "own_step"
        ):
            return
        try:
            move = displacement(self._objective, self._optimizer, gradient)
        except NoStepError as error:
            self.unavailable["own_step"] = error.reason
            return
        if not bool(torch.isfinite(move).all()):
            self.unavailable["own_step"] = Unavailable.STEP_NOT_FINITE
            return
        with self._charged("the optimizer's own step"):
            self.values["own_step"] = descend(
                self._objective, move, FACTORS, gradient=gradient, loss=self.values["loss"]
            )

    def _spectrum(self) -> Spectrum | None:
        objective = self._objective
        if not self._affords(_SPECTRUM_COST, "sharpness", "lambda_min", "trace", "density", "condition_number",
                             "stability_limit"):  # fmt: skip
            return None
        # What divides by its own state feels another Hessian, whose largest eigenvalue takes products of its own.
        is_plain = self._optimizer is None or isinstance(self._optimizer, (SGD, VelocitySGD))
        kept = self._pictures() + (0.0 if is_plain else _LIMIT_PRODUCTS * self._product_cost())
        with self._charged("spectrum"):
            left = self._budget - objective.cost
            found = spectrum(objective, budget=min(left, max(_SPECTRUM_COST, left - kept)), seed=self._seed)
        self.values |= {
            "sharpness": Eigenvalue(found.largest.value, found.largest.residual),
            "lambda_min": Eigenvalue(found.smallest.value, found.smallest.residual),
            "trace": Estimate(found.trace.value, found.trace.std_error),
            "density": found.density,
        }
        if found.condition is None:
            self.unavailable["condition_number"] = Unavailable.NO_POSITIVE_EIGENVALUE
        else:
            self.values["condition_number"] = found.condition.value
            self.values["condition_is_lower_bound"] = found.condition.is_lower_bound
        self._limit(found, is_plain=is_plain)
        return found

    def _limit(self, found: Spectrum, *, is_plain: bool) -> None:
        least = 0.0 if is_plain else _FEWEST_PRODUCTS * self._product_cost()
        if self._optimizer is None or not self._affords(least, "stability_limit"):
            return
        left = self._budget - self._objective.cost - self._pictures()
        with self._charged("stability limit"):
            limit = stability_limit(
                self._optimizer,
                self._objective,
                sharpness=found.largest,
                max_products=max(_FEWEST_PRODUCTS, int(left / self._product_cost())),
                seed=self._seed,
            )
        self.values["stability_limit"] = limit.value
        if limit.reason is not None:
            self.unavailable["stability_limit"] = limit.reason

    def _product_cost(self) -> float:
        # Asking may build the graphs that the products then share.
        with self._charged("spectrum"):
            return self._objective.product_cost()

    def _pictures(self) -> float:
        """Return what the pictures will cost."""
        return 2 * len(_SHARES) * LOSS_COST + PLANE_COST + (_JOURNEY_COST if self._has_start else 0.0)

    def _profiles(self, gradient: Tensor, found: Spectrum | None) -> None:
        if found is None or not self._affords(2 * len(_SHARES) * LOSS_COST):
            return
        profiles = []
        with self._charged("loss along directions"):
            for name, pair in (("largest curvature", found.largest), ("smallest curvature", found.smallest)):
                # The side on which the gradient does not point up.
                direction = pair.vector if float(pair.vector @ gradient) <= 0 else -pair.vector
                reach = self._reach(pair.value)
                distances = tuple(reach * share for share in _SHARES)
                losses = tuple(self.values["loss"] if d == 0 else self._loss_at(direction, d) for d in distances)
                profiles.append(Profile(name, distances, losses))
        self.values["profiles"] = tuple(profiles)

    def _reach(self, curvature: float) -> float:
        """Return where the curvature alone changes the loss by as much as there is, but not beyond the parameters."""
        size = max(self.values["parameter_norm"], _USUAL_WEIGHT * math.sqrt(self._objective.num_parameters))
        loss = abs(self.values["loss"])
        return float(min(size, math.sqrt(2.0 * loss / abs(curvature)))) if curvature and loss else float(size)

    def _journey(self, start: dict[str, Tensor], gradient: Tensor, path: Sequence[Tensor]) -> None:
        with self._charged("way from the start"):
            self.values["journey"] = look_back(self._objective, start, gradient=gradient, path=path)

    def _plane(self, gradient: Tensor, found: Spectrum | None, path: Sequence[Tensor]) -> None:
        if self._budget - self._objective.cost < PLANE_COST:
            self.unavailable["plane"] = Unavailable.BUDGET
            return
        named = [("the gradient", -gradient)]
        if found is not None:
            named += [
                ("the smallest curvature", found.smallest.vector),
                ("the largest curvature", found.largest.vector),
            ]
        with self._charged("slice of the landscape"):
            plane = slice_through(self._objective, named, path, size=self.values["parameter_norm"])
        if plane is None:
            self.unavailable["plane"] = Unavailable.NO_TWO_DIRECTIONS
        else:
            self.values["plane"] = plane

    def _loss_at(self, vector: Tensor, factor: float) -> float:
        with self._objective.moved(vector, factor):
            return self._objective.loss()

    @contextmanager
    def _charged(self, what: str) -> Iterator[None]:
        before = self._objective.cost
        try:
            yield
            self._objective.agree_on_cost()
        finally:
            self.spent_on[what] = self.spent_on.get(what, 0.0) + self._objective.cost - before


def _no_factor(norms: Sequence[float], too_few: Unavailable) -> Unavailable:
    """Return why some norms have no factor from one to the next."""
    if len(norms) < FEWEST_LAYERS:
        return too_few
    return Unavailable.NO_GRADIENT if all(map(math.isfinite, norms)) else Unavailable.GRADIENT_NOT_FINITE
