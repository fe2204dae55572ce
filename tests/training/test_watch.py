"""The watch as a callback: the fit's bits stay, its record is in the history and goes on after a resume."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from tests.training.cut_off import DieAt, Dies


def arrays(n=96):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def make_learner(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2))
    options.setdefault("optimizer", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    return cw.Learner(model, cw.Data.from_arrays(*arrays(), batch_size=16), progress=False, **options)


def bits(learn):
    return [value.clone() for value in learn.model.state_dict().values()], torch.get_rng_state()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True)) and torch.equal(one[1], other[1])


def watch():
    return cw.Watch(every=2, noise_every=3, sharpness_every=4)


CONSTANT = cw.Constant(lr=0.05, total_steps=12)


@pytest.mark.parametrize("options", [
    {}, {"accumulation_steps": 2}, {"clip": 0.1}, {"clip": "auto"},
    {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.01)},
    {"optimizer": lambda groups: torch.optim.LBFGS(groups[0]["params"], lr=0.05, max_iter=3)},
], ids=["plain", "accumulation", "clip", "clip-auto", "adamw", "lbfgs"])  # fmt: skip
def test_a_watched_fit_ends_with_the_bits_of_one_that_is_not(options):
    plain = make_learner(**options)
    losses = plain.fit(CONSTANT).loss
    end = bits(plain)
    watched = make_learner(**options)
    history = watched.fit(CONSTANT, callbacks=[watch()])
    assert same(end, bits(watched))
    assert history.loss.tolist() == losses.tolist()
    record = history.watched
    assert record.step.tolist() == [1, 2, 3, 5, 7, 8, 9, 11]
    assert np.isfinite(record.gradient_norm).all()
    assert np.isfinite(record.sharpness).sum() == 3
    assert not plain.optimizer._optimizer_step_post_hooks
    assert not watched.optimizer._optimizer_step_post_hooks


def test_the_gradient_norm_is_from_before_the_clipping():
    policy = cw.Constant(lr=0.05, total_steps=1)
    norms = [make_learner(clip=clip).fit(policy, callbacks=[cw.Watch(every=1)]).watched.gradient_norm[0]
             for clip in (1e-3, None)]  # fmt: skip
    assert norms[0] == norms[1] > 1e-3


def test_rate_and_limit_are_those_of_the_step():
    policy = cw.OneCycle(max_lr=0.2, total_steps=20, base_momentum=0.85, max_momentum=0.95)
    record = make_learner().fit(policy, callbacks=[cw.Watch(every=1)]).watched
    steps = np.arange(20)
    np.testing.assert_array_equal(record.lr, policy.lr(steps))
    np.testing.assert_allclose(record.sharpness_limit, 2 * (1 + policy.momentum(steps)) / policy.lr(steps))


def test_accumulated_batches_are_measured_together():
    batches = list(zip(*(part.split(16) for part in arrays()), strict=True))
    pairs = [tuple(map(torch.cat, zip(*batches[i : i + 2], strict=True))) for i in range(0, 6, 2)]

    def record(data, **options):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        learn = cw.Learner(model, cw.Data(data), progress=False, **options)
        settings = {"every": 1, "noise_every": 1, "sharpness_every": 1}
        return learn.fit(cw.Constant(lr=0.05, total_steps=3), callbacks=[cw.Watch(**settings)]).watched

    one, other = record(batches, accumulation_steps=2), record(pairs)
    assert one.num_samples == other.num_samples == 32
    for name in ("gradient_norm", "update_ratio", "gradient_variance", "squared_gradient", "curvature", "sharpness"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-3, err_msg=name)


def test_a_resumed_fit_goes_on_with_its_record(tmp_path):
    def fit(name, die_at=None):
        learn = make_learner()
        if name == "resumed":
            learn.resume(tmp_path)
        return learn, learn.fit(CONSTANT, callbacks=[
            watch(), cw.Checkpoint(tmp_path / ("whole" if name == "whole" else ""), every_steps=5), DieAt(die_at)
        ])  # fmt: skip

    whole, expected = fit("whole")
    with pytest.raises(Dies):
        fit("cut", die_at=8)
    resumed, history = fit("resumed")
    assert same(bits(whole), bits(resumed))
    assert history.watched == expected.watched
    again = make_learner()
    again.resume(tmp_path)
    looked_up = again.fit(CONSTANT, callbacks=[watch(), cw.Checkpoint(tmp_path), DieAt(None)])
    assert looked_up.watched == expected.watched
    assert looked_up == cw.History.from_dict(json.loads(json.dumps(looked_up.to_dict())))


def test_the_history_counts_on_over_several_fits():
    learn = make_learner()
    learn.fit(CONSTANT)
    seen = cw.Watch(every=5, sharpness_every=6)
    learn.fit(CONSTANT, callbacks=[seen])
    learn.fit(CONSTANT)
    record = learn.history.watched
    assert record.num_steps == 36
    assert record.step.tolist() == [16, 17, 21, 23]
    assert seen.record.step.tolist() == [4, 5, 9, 11]
    titles = [chart.title for chart in learn.history.charts()]
    at = titles.index("Learning rate")
    assert titles[at + 1 : at + 3] == ["Sharpness against the limit of the optimizer", "Gradient norm"]


def test_the_pictures_and_the_report_show_it_under_the_rate(tmp_path):
    learn = make_learner()
    history = learn.fit(CONSTANT, callbacks=[watch()])
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in learn.sched.plot_lr().axes]
    assert titles[:2] == ["Learning rate", "Sharpness against the limit of the optimizer"]
    page = cw.write_html(history, tmp_path / "report.html").read_text()
    assert page.index("Learning rate") < page.index("Sharpness against the limit of the optimizer")
    assert "12 steps watched" in page


def test_a_run_that_is_rolled_back_drops_what_it_had_watched():
    spoiled = []

    def loss_fn(outputs, targets):
        loss = F.cross_entropy(outputs, targets)
        if learn.num_steps == 7 and outputs.requires_grad and not spoiled and learn.run is not None:
            spoiled.append(True)
            return loss * float("nan")
        return loss

    learn = make_learner(loss_fn=loss_fn, on_divergence="rollback")
    with pytest.warns(UserWarning, match="rolled back to step 5"):
        record = learn.fit(CONSTANT, callbacks=[cw.Watch(every=1)]).watched
    assert record.step.tolist() == list(range(12))
    assert record.num_steps == 12
    assert np.isfinite(record.update_ratio).all()


def test_the_edge_of_stability_is_seen():
    """Full-batch gradient descent sharpens up to 2 / lr and stays there (arXiv:2103.00065)."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 6)
    targets = torch.sin(2 * inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.15)
    learn = cw.Learner(model, [(inputs, targets)], loss_fn=F.mse_loss, optimizer=optimizer, progress=False)
    history = learn.fit(cw.Constant(lr=0.15, total_steps=1500),
                        callbacks=[cw.Watch(noise_every=None, sharpness_every=50)])  # fmt: skip
    record = history.watched
    sharpness = record.sharpness[np.isfinite(record.sharpness)]
    limit = 2 / 0.15
    assert sharpness[0] < 0.6 * limit
    assert record.edge_steps is not None
    assert record.edge_steps[1] > 1400
    assert 0.85 * limit < np.median(sharpness[-10:]) < 1.3 * limit
    assert "at the edge of stability from step" in str(history.section().conclusion)


PROGRAM = """
import json, os, sys, warnings, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import cyclewise as cw

warnings.simplefilter("ignore")
num_ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(192, 6, generator=generator)
train = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=32 // num_ranks)
answer = {}
for name, callbacks in (("plain", []), ("watched", [cw.Watch(every=1, noise_every=2, sharpness_every=2)])):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    learn = cw.Learner(model, cw.Data(train), progress=False,
                       optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    history = learn.fit(cw.Constant(lr=0.1, total_steps=8), callbacks=callbacks)
    answer[name] = {key: value.tolist() for key, value in learn.model.state_dict().items()}
answer["record"] = history.watched.to_dict()
with open(f"{sys.argv[1]}/{num_ranks}-{rank}.json", "w") as file:
    json.dump(answer, file)
if num_ranks > 1:
    torch.distributed.barrier()
    os._exit(0)  # gloo's own threads may abort the interpreter's exit
"""


@pytest.mark.slow
def test_two_processes_measure_the_loss_of_all_their_batches(tmp_path, monkeypatch):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, tmp_path],
        capture_output=True, text=True, timeout=110, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path)])
    exec(PROGRAM, {})
    first, second, one = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("2-0", "2-1", "1-0"))
    assert first == second
    assert first["plain"] == first["watched"]
    assert one["record"]["num_samples"] == first["record"]["num_samples"] == 32
    for name in ("gradient_norm", "update_ratio", "curvature", "sharpness", "sharpness_limit"):
        expected, got = (np.array(run["record"][name], dtype=float) for run in (one, first))
        np.testing.assert_allclose(got, expected, rtol=2e-3, err_msg=name)


def test_in_bfloat16_the_curvature_is_that_of_full_precision():
    def fit(callbacks):
        learn = make_learner()
        learn.runtime.autocast_dtype = torch.bfloat16
        history = learn.fit(CONSTANT, callbacks=callbacks)
        return bits(learn), history.watched

    plain, _ = fit([])
    watched, record = fit([watch()])
    assert same(plain, watched)
    assert np.isfinite(record.sharpness).sum() == 3
    assert np.isfinite(record.gradient_variance).sum() == 4
