import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cyclewise as cw
from cyclewise.training.calibration import calibration_error


def reference(probabilities, targets, num_bins):
    """Return the definition, bin by bin and sample by sample."""
    samples = [
        (max(row), int(row.index(max(row)) == target))
        for row, target in zip(probabilities.tolist(), targets.tolist(), strict=True)
    ]
    error = 0.0
    for m in range(1, num_bins + 1):
        inside = [(confidence, hit) for confidence, hit in samples if (m - 1) / num_bins < confidence <= m / num_bins]
        if inside:
            confidence, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += len(inside) / len(samples) * abs(accuracy - confidence)
    return error


@st.composite
def classified(draw):
    num_samples, num_classes = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    logits = draw(hnp.arrays(np.float64, (num_samples, num_classes), elements=st.floats(-30, 30)))
    targets = draw(hnp.arrays(np.int64, num_samples, elements=st.integers(0, num_classes - 1)))
    return torch.softmax(torch.from_numpy(logits), dim=1), torch.from_numpy(targets)


@given(classified(), st.sampled_from([1, 2, 7, 16]))
def test_it_is_the_definition_and_a_fraction(classes, num_bins):
    error = calibration_error(*classes, num_bins=num_bins)
    assert 0.0 <= error <= 1.0
    # With these numbers of bins, probabilities of up to six equal classes meet no edge that may be rounded differently.
    assert error == pytest.approx(reference(*classes, num_bins), abs=1e-9)


@given(classified(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(classes, random):
    probabilities, targets = classes
    order = torch.tensor(random.sample(range(len(targets)), len(targets)))
    assert calibration_error(probabilities[order], targets[order]) == pytest.approx(
        calibration_error(probabilities, targets), abs=1e-12
    )


@given(st.lists(st.integers(1, 20).flatmap(lambda n: st.tuples(st.integers((n + 1) // 2, n), st.just(n))), min_size=1))
def test_confidence_that_is_the_accuracy_is_perfect(groups):
    probabilities = torch.tensor(
        [[right / n, 1 - right / n] for right, n in groups for _ in range(n)], dtype=torch.float64
    )
    # Where both classes are as probable, the first counts as the prediction.
    targets = torch.tensor([int(i >= right) for right, n in groups for i in range(n)])
    assert calibration_error(probabilities, targets) == pytest.approx(0.0, abs=1e-12)


def test_sure_and_wrong_is_the_worst():
    probabilities = torch.eye(3)
    assert calibration_error(probabilities, torch.tensor([1, 2, 0])) == 1.0
    assert calibration_error(probabilities, torch.tensor([0, 1, 2])) == 0.0


def test_bins_are_closed_on_the_right():
    # 0.5 belongs to the lower of two bins: one bin with two samples, whose gaps of -0.5 and 0.5 cancel.
    probabilities = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert calibration_error(probabilities, torch.tensor([0, 1]), num_bins=2) == 0.0
    apart = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    assert calibration_error(apart, torch.tensor([0, 1]), num_bins=2) == (0.5 + 0.75) / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_accepted(dtype):
    probabilities = torch.softmax(torch.randn(200, 1000), dim=1).to(dtype)
    targets = torch.randint(1000, (200,))
    assert calibration_error(probabilities, targets) == pytest.approx(reference(probabilities, targets, 15), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], torch.tensor([0])), cw.ArgumentTypeError,
         "probabilities must be a tensor, got list [[1.0]]; convert it with torch.as_tensor"),
        ((torch.ones(4, 1), torch.zeros(3, dtype=torch.long)), cw.ArgumentError,
         "probabilities and targets must have shapes [N, C] and [N], with whole numbers as targets, got (4, 1) and "
         "(3,) with targets of torch.int64; flatten further dimensions into N, and pass classes as indices"),
        ((torch.ones(4, 1), torch.zeros(4)), cw.ArgumentError,
         "probabilities and targets must have shapes [N, C] and [N], with whole numbers as targets, got (4, 1) and "
         "(4,) with targets of torch.float32; flatten further dimensions into N, and pass classes as indices"),
        ((torch.ones(0, 3), torch.zeros(0, dtype=torch.long)), cw.ArgumentError,
         "probabilities must hold at least one sample and one class, got shapes (0, 3) and (0,); "
         "pass the validation data"),
        ((torch.tensor([[2.0, -1.0]]), torch.tensor([0])), cw.ArgumentError,
         "probabilities must lie in [0, 1] and sum to 1 over the classes, got values from -1 to 2 "
         "and sums from 1 to 1 in shapes (1, 2) and (1,); pass torch.softmax(outputs, dim=1)"),
        ((torch.tensor([[0.75, 0.5]]), torch.tensor([0])), cw.ArgumentError,
         "probabilities must lie in [0, 1] and sum to 1 over the classes, got values from 0.5 to 0.75 "
         "and sums from 1.25 to 1.25 in shapes (1, 2) and (1,); pass torch.softmax(outputs, dim=1)"),
        ((torch.tensor([[math.nan, 0.5]]), torch.tensor([0])), cw.ArgumentError,
         "probabilities must lie in [0, 1] and sum to 1 over the classes, got values from nan to nan "
         "and sums from nan to nan in shapes (1, 2) and (1,); pass torch.softmax(outputs, dim=1)"),
        ((torch.tensor([[0.5, 0.5]]), torch.tensor([2])), cw.ArgumentError,
         "targets must be class indices in [0, 2), got values from 2 to 2 in shapes (1, 2) and (1,); "
         "leave out samples that have no class"),
    ],
)  # fmt: skip
def test_bad_arguments_say_what_to_do(arguments, error, message):
    with pytest.raises(error) as caught:
        calibration_error(*arguments)
    assert str(caught.value) == message


def test_the_number_of_bins_is_checked():
    with pytest.raises(cw.ArgumentError) as caught:
        calibration_error(torch.ones(1, 1), torch.tensor([0]), num_bins=0)
    assert str(caught.value) == "num_bins must be a whole number of at least 1, got 0; 15 is usual"
