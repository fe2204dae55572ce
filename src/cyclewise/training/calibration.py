"""How far a classifier's confidence is from its accuracy."""

import torch
from torch import Tensor

from cyclewise._validation import instance, whole
from cyclewise.errors import ArgumentError

# Probabilities in bfloat16 have three digits, so that a row of many classes sums to 1 only about so well.
_SUM_TOLERANCE = 0.01


def calibration_error(probabilities: Tensor, targets: Tensor, *, num_bins: int = 15) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over bins of confidence.

    A sample's confidence is its largest probability. The M bins ``((m - 1) / M, m / M]`` divide (0, 1] evenly; with
    ``|B_m|`` samples in bin m of N in all, the error is the sum over the bins of
    ``|B_m| / N * |accuracy(B_m) - confidence(B_m)|``. It depends on the number of bins, and is biased upwards where
    bins hold few samples: compare values of equal N and M only.

    Args:
        probabilities: probability of each class, shape [N, C], in [0, 1], rows summing to 1.
        targets: class indices, shape [N], integers in [0, C).
        num_bins: number of bins M.

    Returns:
        the error, a fraction in [0, 1]; 0 for perfect calibration.

    Raises:
        ArgumentTypeError: an argument is no tensor.
        ArgumentError: the shapes do not fit, there are no samples, or the values are no probabilities or class indices.

    Source: Guo, Pleiss, Sun and Weinberger, arXiv:1706.04599, section 3 (ECE); 15 bins as in its experiments.

    Example:
        >>> probabilities = torch.tensor([[0.75, 0.25]] * 4)
        >>> calibration_error(probabilities, torch.tensor([0, 0, 0, 1]))  # sure to 75 %, and 75 % are right
        0.0
        >>> calibration_error(probabilities, torch.tensor([0, 1, 1, 1]))
        0.5
    """
    for name, value in (("probabilities", probabilities), ("targets", targets)):
        instance(name, value, Tensor, "a tensor", way_out="convert it with torch.as_tensor")
    num_bins = whole("num_bins", num_bins, minimum=1, way_out="15 is usual")
    _check(probabilities, targets)
    confidences, predictions = probabilities.detach().max(dim=1)
    confidences = confidences.to("cpu").to(torch.float64).clamp(max=1.0)
    hits = (predictions == targets.detach()).to("cpu").to(torch.float64)
    inner_edges = torch.linspace(0.0, 1.0, num_bins + 1, dtype=torch.float64)[1:-1].contiguous()
    # right=False is bucketize's name for bins that are closed on the right.
    bins = torch.bucketize(confidences, inner_edges, right=False)
    # |B| / N * |accuracy - confidence| is the distance of the two sums, divided by N: no empty bin to divide by.
    gaps = torch.bincount(bins, weights=hits, minlength=num_bins) - torch.bincount(
        bins, weights=confidences, minlength=num_bins
    )
    return float(gaps.abs().sum() / len(hits))


def _check(probabilities: Tensor, targets: Tensor) -> None:
    is_whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    shapes = f"{tuple(probabilities.shape)} and {tuple(targets.shape)}"
    if probabilities.ndim != 2 or targets.ndim != 1 or len(probabilities) != len(targets) or not is_whole:
        raise ArgumentError(
            f"probabilities and targets must have shapes [N, C] and [N], with whole numbers as targets, got {shapes} "
            f"with targets of {targets.dtype}; flatten further dimensions into N, and pass classes as indices"
        )
    if probabilities.numel() == 0:
        raise ArgumentError(
            f"probabilities must hold at least one sample and one class, got shapes {shapes}; pass the validation data"
        )
    sums = probabilities.detach().to(torch.float32).sum(dim=1)
    # Written so that NaN fails as well.
    are_fractions = bool(((probabilities >= 0) & (probabilities <= 1 + _SUM_TOLERANCE)).all())
    if not are_fractions or not bool(((sums - 1).abs() <= _SUM_TOLERANCE).all()):
        raise ArgumentError(
            "probabilities must lie in [0, 1] and sum to 1 over the classes, "
            f"got values from {probabilities.min().item():.4g} to {probabilities.max().item():.4g} "
            f"and sums from {sums.min().item():.4g} to {sums.max().item():.4g} in shapes {shapes}; "
            "pass torch.softmax(outputs, dim=1)"
        )
    if int(targets.min()) < 0 or int(targets.max()) >= probabilities.shape[1]:
        raise ArgumentError(
            f"targets must be class indices in [0, {probabilities.shape[1]}), got values from {int(targets.min())} to "
            f"{int(targets.max())} in shapes {shapes}; leave out samples that have no class"
        )
