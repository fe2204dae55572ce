"""A precision that autocast does not have is refused wherever it can be given."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.stepping import Step

MODEL = nn.Linear(3, 2)
BATCHES = [(torch.randn(8, 3), torch.randint(2, (8,)))]


def sgd():
    return torch.optim.SGD(MODEL.parameters(), lr=0.1)


DOORS = {
    "lr_find": lambda dtype: cw.lr_find(MODEL, sgd(), F.cross_entropy, BATCHES, autocast_dtype=dtype),
    "Watch": lambda dtype: cw.Watch().start(MODEL, sgd(), F.cross_entropy, autocast_dtype=dtype),
    "Step": lambda dtype: Step(MODEL, sgd(), F.cross_entropy, autocast_dtype=dtype),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float32, torch.float64, torch.complex64])
def test_another_precision_is_refused(door, dtype):
    with pytest.raises(cw.ArgumentError) as caught:
        door(dtype)
    assert str(caught.value) == (
        f"autocast_dtype must be torch.float16 or torch.bfloat16, got {dtype}; "
        "pass torch.bfloat16, or None for full precision"
    )


def test_what_is_no_dtype_is_refused():
    with pytest.raises(cw.ArgumentError, match=r"got str 'bf16'; pass torch\.bfloat16, or None for full precision$"):
        DOORS["Watch"]("bf16")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_what_autocast_has_is_taken(dtype):
    loss = Step(MODEL, sgd(), F.cross_entropy, autocast_dtype=dtype).loss(BATCHES[0])
    assert torch.isfinite(loss)
