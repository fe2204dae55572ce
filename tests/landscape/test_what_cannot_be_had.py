"""Models that cannot be measured whole: what is left is measured, and the rest says why."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import cyclewise as cw
from cyclewise.landscape.culprit import ReentrantError
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.unavailable import Unavailable

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(16, 4, generator=GENERATOR), torch.randn(16, 1, generator=GENERATOR)) for _ in range(2)]


class Checkpointed(nn.Module):
    """Its middle, or its beginning, is computed again in the backward pass."""

    def __init__(self, *, use_reentrant, is_first=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.use_reentrant, self.is_first = use_reentrant, is_first

    def forward(self, inputs):
        part = nn.Sequential(self.first, self.middle) if self.is_first else self.middle
        hidden = inputs.requires_grad_() if self.is_first else self.first(inputs)
        return self.last(checkpoint(part, hidden, use_reentrant=self.use_reentrant))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("is_first", [False, True])
def test_a_reentrant_checkpoint_leaves_the_loss(is_first):
    model = Checkpointed(use_reentrant=True, is_first=is_first)
    diagnosis = cw.diagnose(model, F.mse_loss, BATCHES, budget=40)
    assert math.isfinite(diagnosis.loss)
    assert diagnosis.gradient_norm is None
    assert diagnosis.sharpness is None
    assert diagnosis.unavailable["gradient_norm"] is diagnosis.unavailable["sharpness"] is Unavailable.REENTRANT
    assert str(diagnosis).startswith(
        "Only the loss could be measured: gradients do not pass torch.utils.checkpoint(use_reentrant=True) here; "
        "pass use_reentrant=False. loss "
    )
    assert cw.Diagnosis.from_dict(diagnosis.to_dict()) == diagnosis
    with pytest.raises(ReentrantError, match=r"pass use_reentrant=False$"):
        Objective(model, F.mse_loss, BATCHES).gradient()


@pytest.mark.parametrize("is_first", [False, True])
def test_one_that_is_not_reentrant_is_as_good_as_none(is_first):
    model = Checkpointed(use_reentrant=False, is_first=is_first)
    diagnosis = cw.diagnose(model, F.mse_loss, BATCHES, budget=40)
    plain = Checkpointed(use_reentrant=False)
    plain.forward = lambda inputs: plain.last(plain.middle(plain.first(inputs)))
    assert diagnosis.gradient_norm == pytest.approx(cw.diagnose(plain, F.mse_loss, BATCHES, budget=40).gradient_norm)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_is_measured_but_for_what_takes_hooks():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    diagnosis = cw.diagnose(torch.jit.script(plain), F.mse_loss, BATCHES)
    assert diagnosis.sharpness.value == pytest.approx(cw.diagnose(plain, F.mse_loss, BATCHES).sharpness.value, rel=1e-3)
    assert (diagnosis.flow_factor, diagnosis.unavailable["flow_factor"]) == (None, Unavailable.FEW_LAYERS)


@pytest.mark.parametrize("loss_fn", [nn.MultiMarginLoss(), nn.MultiLabelMarginLoss()])
def test_a_margin_loss_without_second_derivatives_leaves_the_gradient(loss_fn):
    torch.manual_seed(0)
    inputs = torch.randn(16, 4)
    targets = torch.randint(3, (16,)) if isinstance(loss_fn, nn.MultiMarginLoss) else torch.tensor([[1, -1, -1]] * 16)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    diagnosis = cw.diagnose(model, loss_fn, [(inputs, targets)], optimizer=optimizer, budget=60)
    assert diagnosis.gradient_norm > 0.0
    assert diagnosis.unavailable["sharpness"] is Unavailable.NOT_TWICE
    assert diagnosis.flow_total > 0.0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_mode_of_evaluation_is_no_matter(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = cw.diagnose(model, F.mse_loss, BATCHES, optimizer=optimizer, budget=60)
    with mode():
        assert cw.diagnose(model, F.mse_loss, BATCHES, optimizer=optimizer, budget=60) == expected
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_the_picture_of_a_loss_that_is_not_finite_says_so(factor):
    diagnosis = cw.diagnose(nn.Linear(4, 1), lambda outputs, targets: factor * F.mse_loss(outputs, targets), BATCHES)
    figure = diagnosis.plot()
    assert any("the loss is not finite" in text.get_text() for text in figure.axes[0].texts)
    assert "the loss is not finite" in diagnosis._repr_html_()
