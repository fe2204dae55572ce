"""Models in half precision are measured in float32, also where they cast their inputs themselves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.landscape.precision import AtLeast

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(16, 4, generator=GENERATOR), torch.randn(16, 1, generator=GENERATOR)) for _ in range(2)]


class Casting(nn.Module):
    def __init__(self, cast, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(torch.bfloat16).to(dtype)
        self.cast = cast

    def forward(self, inputs):
        return self.network(self.cast(inputs)).float()


CASTS = {
    "to": (lambda x: x.to(torch.bfloat16), torch.bfloat16),
    "to by name": (lambda x: x.to(dtype=torch.bfloat16), torch.bfloat16),
    "type": (lambda x: x.type(torch.bfloat16), torch.bfloat16),
    "bfloat16": (lambda x: x.bfloat16(), torch.bfloat16),
    "half": (lambda x: x.half(), torch.float16),
    "none": (lambda x: x, torch.bfloat16),
}


def diagnosed(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return cw.diagnose(model, F.mse_loss, BATCHES, optimizer=optimizer, budget=60)


@pytest.mark.parametrize("cast", CASTS)
def test_a_model_that_casts_its_inputs_is_measured_as_in_single_precision(cast):
    model = Casting(*CASTS[cast])
    found, expected = diagnosed(model), diagnosed(Casting(lambda x: x, torch.float32))
    assert {p.dtype for p in model.parameters()} == {CASTS[cast][1]}
    for name in ("loss", "gradient_norm", "best_step", "stability_limit"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3)


def test_only_lower_precisions_are_raised():
    x = torch.ones(2)
    with AtLeast(torch.float64):
        assert x.float().dtype is x.to("cpu", torch.float32).dtype is torch.zeros(1, dtype=torch.half).dtype
        assert x.float().dtype is torch.float64
        assert (x > 0).to(torch.int32).dtype is torch.int32
    with AtLeast(torch.float32):
        assert x.double().dtype is torch.float64
    assert x.half().dtype is torch.float16
