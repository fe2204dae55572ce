"""The rates that a comparison finds first, with the same effort for each policy, or the reason why there is none."""

import json
import math

import pytest
import torch

import cyclewise as cw
from cyclewise.comparison.rows import Missing
from cyclewise.report import write_html
from tests.comparison.tasks import constant, local, make_learner


def test_tuning_by_range_test_gives_every_policy_its_rate_and_counts_it():
    policies = {"cycle": cw.OneCycle(max_lr=1.0, total_steps=12), "fixed": constant(1.0)}
    c = local(policies, baseline="fixed", tune="lr_find")
    found = local({"a": constant(1.0)}, baseline="a", seeds=[2], tune="lr_find").row("a")
    cycle, fixed = c.row("cycle"), c.row("fixed")
    assert cycle.tuned_lr == pytest.approx(3 * fixed.tuned_lr)
    assert cycle.tuning_steps == fixed.tuning_steps == found.tuning_steps > 0
    assert cw.policy_from_dict(cycle.policy).lr(3) == pytest.approx(cycle.tuned_lr * policies["cycle"].lr(3))


def test_range_tests_are_told_the_length_of_the_runs_and_made_once_for_each(tmp_path):
    def few(seed):
        labels = torch.randint(2, (250,))
        inputs = torch.randn(250, 20)
        inputs[:, :4] += 1.2 * labels[:, None]
        data = cw.Data.from_arrays(inputs, labels, batch_size=20, seed=seed)
        model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
        return cw.Learner(model, data, optimizer=torch.optim.Adam)

    policies = {"short": constant(1.0, 4), "long": constant(1.0, 400), "too": cw.Cosine(max_lr=1.0, total_steps=400)}
    c = local(policies, few, baseline="short", tune="lr_find", tuning_seeds=[7, 8], seeds=[0], store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * 2 + 3
    for row in c.rows:
        found = []
        for seed in (7, 8):
            torch.manual_seed(seed)
            found.append(few(seed).lr_find(total_steps=row.total_steps, progress=False))
        rates = [test.max_lr if row.name == "too" else test.constant_lr for test in found]
        assert row.tuned_lr == pytest.approx(math.sqrt(math.prod(rates)))
    assert c.row("short").tuned_lr > 2 * c.row("long").tuned_lr


def test_tuning_by_grid_takes_the_best_rate_of_other_seeds():
    c = local(tune=[0.001, 0.1, 1e30], tuning_seeds=[7, 8])
    for row in c.rows:
        scores = dict(row.tuning)
        assert scores[1e30] is None
        assert row.tuned_lr == (0.1 if scores[0.1] < scores[0.001] else 0.001)
        assert 2 * 2 * 12 <= row.tuning_steps <= 3 * 2 * 12
    direct = local({"x": constant(0.1)}, baseline="x", seeds=[7, 8])
    assert dict(c.rows[0].tuning)[0.1] == direct.rows[0].mean
    assert c.row("low").values == c.row("high").values  # two constants with one rate are one policy


def test_a_policy_without_a_rate_from_the_range_test_is_not_run():
    def noise(seed):
        learn = make_learner(seed)
        for parameter in learn.model.parameters():
            parameter.data.fill_(math.nan)
        return learn

    c = local(make=noise, tune="lr_find")
    assert [row.unavailable["mean"] for row in c.rows] == [Missing.REFUSED] * 2
    assert c.row("high").verdict == (
        "not run: the range test refused to give a rate: the loss or its gradient is not finite before any training"
    )
    assert c.row("high").unavailable["difference"] is Missing.REFUSED
    (refusal,) = c.row("high").refusals
    assert refusal is cw.Refusal.NONFINITE_START
    assert c.section().conclusion.endswith(f". What to do: {refusal.remedy}.")
    assert c.section().tables[1].rows[0][1] == f"refused: {refusal.value}"
    assert cw.Comparison.from_dict(json.loads(json.dumps(c.to_dict()))) == c


def test_a_comparison_without_a_run_is_drawn_as_the_reason(tmp_path):
    c = local(make=frozen, tune="lr_find")
    (axes,) = c.plot().axes
    assert "no parameter requires a gradient" in axes.texts[0].get_text().replace("\n", " ")
    assert "no parameter requires a gradient" in write_html(c, tmp_path / "report.html").read_text()


def test_a_range_test_that_refuses_on_some_seeds_is_named_beside_the_rate_of_the_others():
    c = local(make=lambda seed: frozen(seed) if seed == 7 else make_learner(seed), tune="lr_find", tuning_seeds=[7, 8])
    assert c.row("low").refusals == (cw.Refusal.FROZEN,)
    assert c.section().tables[1].rows[0][1] == (
        f"{c.row('low').tuned_lr:.3g} (refused on 1 seed: no parameter requires a gradient)"
    )


def frozen(seed):
    learn = make_learner(seed)
    return cw.Learner(learn.model.requires_grad_(False), learn.data, metrics=learn.metrics,
                      optimizer=torch.optim.SGD(learn.model.parameters(), lr=0.1))  # fmt: skip
