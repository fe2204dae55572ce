"""Where every gradient is exactly zero: a finding, unless it is a minimum or a saddle."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw


def network(*, gain=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    return model


def batches(targets=None):
    torch.manual_seed(1)
    inputs = torch.randn(16, 4)
    return [(inputs, torch.randn(16, 2) if targets is None else targets)]


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_a_constant_loss_is_a_finding(level):
    found = cw.diagnose(network(), lambda outputs, targets: outputs.sum() * 0 + level, batches())
    (finding,) = found.findings
    assert (finding.kind, finding.severity) == ("plateau", "severe")
    assert finding.summary == (
        "All gradients are zero, and so is the curvature: no rate can move parameters without a gradient."
    )
    assert finding.evidence == f"gradient norm 0 over 44 parameters, of every sample; loss {level:g}"
    assert finding.remedy == "Look for dead units, a detached output or a constant loss."


def test_a_detached_output_is_a_finding():
    model = network()
    body = model[:2]

    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs):
            return self.model[2](body(inputs)).detach() + 0 * self.model[0].bias.sum()

    (finding,) = cw.diagnose(Detached(), F.mse_loss, batches()).findings
    assert finding.summary.startswith("All gradients are zero")


def test_units_that_are_all_dead_are_called_so():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
    nn.init.constant_(model[0].bias, -100.0)
    assert [finding.kind for finding in cw.diagnose(model, F.mse_loss, batches()).findings] == ["dead_units"]


def test_a_minimum_is_no_finding():
    perfect = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(perfect.weight)
    found = cw.diagnose(perfect, F.mse_loss, batches(torch.zeros(16, 2)))
    assert (found.gradient_norm, found.findings) == (0.0, ())


def test_gradients_that_cancel_are_not_called_zero():
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            return self.place.expand(len(inputs))

    found = cw.diagnose(Bias(), F.l1_loss, [(torch.zeros(2), torch.tensor([-1.0, 1.0]))])
    assert found.gradient_norm == 0.0
    assert not any(finding.summary.startswith("All gradients are zero") for finding in found.findings)


def test_a_saddle_is_called_one():
    found = cw.diagnose(network(gain=0.0), F.mse_loss, batches(torch.randn(16, 1).expand(16, 2)))
    assert "plateau" not in [finding.kind for finding in found.findings]


def test_a_minimum_whose_labels_are_noise_is_no_plateau():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 4, generator=generator)
    targets = 0.1 * inputs.sum(1, keepdim=True) + 3.0 * torch.randn(512, 1, generator=generator)
    model = nn.Linear(4, 1)
    best = torch.linalg.lstsq(torch.cat([inputs, torch.ones(512, 1)], 1), targets).solution[:, 0]
    with torch.no_grad():
        model.weight.copy_(best[None, :4])
        model.bias.copy_(best[4:])
    diagnosis = cw.diagnose(model, F.mse_loss, list(zip(inputs.split(64), targets.split(64), strict=True)))
    assert diagnosis.gradient_norm < 1e-5
    assert [finding.kind for finding in diagnosis.findings if finding.severity != "info"] in ([], ["noise_dominated"])
