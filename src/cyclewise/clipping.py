"""Gradient clipping by the norm over all parameters: at a fixed norm, or at one that follows the recent ones."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cyclewise._validation import describe, positive
from cyclewise.errors import ArgumentError

# arXiv:2504.02507, section 4: how fast mean and variance follow, from how many deviations on a norm is clipped, and how
# many steps are only watched.
_SMOOTHING = 0.97
_DEVIATIONS = 2.5
_WARMUP_STEPS = 25
# Share of the mean below which the deviation is not believed.
_LEAST_DEVIATION = 0.1


class Clip(Protocol):
    """What a step does to its gradients before they are used."""

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        """Scale the gradients of `parameters` down in place, all by one factor."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learned so far."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was learned."""


class NormClip:
    """Scale gradients whose norm over all parameters exceeds `max_norm` down to it; sparse ones count as dense ones do.

    Args:
        max_norm: largest 2-norm over all gradients together, above 0.

    Source: Pascanu et al., arXiv:1211.5063, section 3.2.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> NormClip(1.0)([weight])
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = positive("clip", max_norm, way_out='1.0 is usual; "auto" follows the recent norms, None is off')

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        """Clip in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not any(gradient.is_sparse for gradient in gradients):
            torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
            return
        # Torch's own formula, and its small number in the denominator.
        factor = self.max_norm / (_norm(gradients) + 1e-6)
        torch._foreach_mul_(_numbers(gradients), factor.clamp(max=1.0))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""
        del state


class AutoClip:
    """Clip only gradients whose norm is an outlier among the recent ones; no number to choose.

    Mean m and variance of the norm are followed by exponential averages (weight 0.97). A norm that lies z > 2.5
    standard deviations above m is scaled down to m + 2.5**2 / z standard deviations; the average then takes the clipped
    norm. The first 25 finite norms are only watched. A norm that is not finite is left to whoever watches the loss.

    Source: Kumar et al., ZClip, arXiv:2504.02507, section 4.

    Example:
        >>> weight, clip = torch.zeros(1, requires_grad=True), AutoClip()
        >>> for norm in [1.0, 1.1] * 20 + [50.0]:
        ...     weight.grad = torch.tensor([norm])
        ...     clip([weight])
        >>> round(weight.grad.item(), 2)
        1.05
    """

    def __init__(self) -> None:
        self._watched: list[Tensor] = []
        self._mean: Tensor | None = None
        self._variance: Tensor | None = None

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        """Clip in place; after the first norms nothing is read from the device."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        norm = _norm(gradients).detach().float()
        if self._mean is None or self._variance is None:
            # What a scaler skips would leave no mean to compare with; after zeros, any gradient would be an outlier.
            if not bool(norm.isfinite() & (norm > 0)):
                return
            self._watched.append(norm)
            if len(self._watched) == _WARMUP_STEPS:
                norms = torch.stack(self._watched)
                self._mean, self._variance, self._watched = norms.mean(), norms.var(), []
            return
        # Norms that hardly vary would make outliers of all that come after them, for ever.
        deviation = torch.maximum(self._variance.sqrt(), _LEAST_DEVIATION * self._mean)
        z = (norm - self._mean) / deviation.clamp_min(1e-12)
        limit = self._mean + _DEVIATIONS**2 / z.clamp_min(_DEVIATIONS) * deviation
        clipped = torch.where(z > _DEVIATIONS, torch.minimum(limit, norm), norm)
        factor = torch.where(norm.isfinite(), clipped / norm.clamp_min(1e-30), torch.ones_like(norm))
        torch._foreach_mul_(_numbers(gradients), factor)
        kept = torch.where(norm.isfinite(), clipped, self._mean)
        self._mean = _SMOOTHING * self._mean + (1.0 - _SMOOTHING) * kept
        self._variance = _SMOOTHING * self._variance + (1.0 - _SMOOTHING) * (kept - self._mean).square()

    def state_dict(self) -> dict[str, Any]:
        """Return mean, variance and the norms watched so far."""
        return {"watched": list(self._watched), "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with saved averages."""
        self._watched, self._mean, self._variance = list(state["watched"]), state["mean"], state["variance"]


def make_clip(clip: float | Literal["auto"] | None) -> Clip | None:
    """Return the clipping that an argument asks for.

    Raises:
        ArgumentError: it is no positive number, "auto" or None.
    """
    if clip is None:
        return None
    if isinstance(clip, str):
        if clip != "auto":
            raise ArgumentError(f'clip must be a norm, "auto" or None, got {describe(clip)}; pass for example 1.0')
        return AutoClip()
    return NormClip(clip)


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm over all gradients; the numbers that a sparse one has for the same place are added up first."""
    return torch.nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])


def _numbers(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the memory of the gradients; whatever multiplies it multiplies them, also where places repeat."""
    return [g._values() if g.is_sparse else g for g in gradients]
