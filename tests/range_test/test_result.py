import copy
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from cyclewise import ArgumentError, Constant, Curve, OneCycle, RangeTest, Refusal, StopReason, SuggestionError

RATES = np.geomspace(1e-6, 1.0, 60)
FALLING = Curve(RATES, (np.log10(RATES) + 1.5) ** 2)
FOUND = RangeTest(
    curve=FALLING,
    stop_reason=StopReason.DIVERGED,
    max_lr=0.42,
    interval=(0.25, 0.6),
    max_lrs=(0.042, 0.42),
    num_steps=60,
    settings=(("seed", 0), ("sweep", "exponential")),
)
ONE_GROUP = replace(FOUND, max_lrs=(0.42,))
REFUSED = RangeTest(
    curve=Curve(RATES[:2], [1.0, math.nan]),
    stop_reason=StopReason.NONFINITE,
    refusal=Refusal.NONFINITE_START,
    num_steps=2,
)


def test_one_line_says_it_all():
    assert str(FOUND) == "max_lr 0.42 (0.25 – 0.6), base_lr 0.042; 60 steps; stopped: diverged"
    assert str(REFUSED) == (
        "no learning rate: the loss or its gradient is not finite before any training; 2 steps; "
        "stopped: loss not finite"
    )


@pytest.mark.parametrize("result", [FOUND, REFUSED])
def test_json_and_back(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    again = RangeTest.from_dict(json.loads(text))
    assert again == result
    assert hash(again) == hash(result)


def test_foreign_json_is_refused():
    with pytest.raises(ArgumentError) as caught:
        RangeTest.from_dict({"record": "History"})
    assert str(caught.value) == (
        "values must describe a RangeTest of version 4, got record='History', version=None; "
        "pass what to_dict() returned"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "values must be a dict, got NoneType None; pass what to_dict() returned"),
        (
            {key: value for key, value in FOUND.to_dict().items() if key != "curve"},
            "values must describe a whole RangeTest, got some that are missing or damaged (KeyError: 'curve'); "
            "pass what to_dict() returned",
        ),
        (
            {**FOUND.to_dict(), "stop_reason": "zz"},
            "values must describe a whole RangeTest, got some that are missing or damaged (KeyError: 'zz'); "
            "pass what to_dict() returned",
        ),
        (
            {**FOUND.to_dict(), "refusal": "FROZEN"},
            "values must describe a whole RangeTest, got some that are missing or damaged (ValueError: max_lr comes "
            "with a curve and without a refusal); pass what to_dict() returned",
        ),
        (
            {**FOUND.to_dict(), "curve": {"lr": [1.0, 2.0], "loss": [1.0]}},
            "loss must be one number for each of the rates in lr, got shapes (1,) and (2,); pass two lists of the same "
            "length",
        ),
    ],
)
def test_damaged_json_is_refused(values, message):
    with pytest.raises(ArgumentError) as caught:
        RangeTest.from_dict(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "damage",
    [
        {"interval": [0.1, 0.2, 0.3]},
        {"interval": None},
        {"max_lr": "abc"},
        {"curve": {"lr": [[1.0]], "loss": [[1.0]]}},
        {"close_ups": [{"lr": [], "loss": []}]},
        {"link": "clear"},
    ],
)
def test_what_would_break_later_is_refused_at_once(damage):
    with pytest.raises(ArgumentError):
        RangeTest.from_dict({**FOUND.to_dict(), **damage})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda curve: pickle.loads(pickle.dumps(curve))])
def test_copies_of_a_curve_are_read_only_too(duplicate):
    again = duplicate(FALLING)
    assert again == FALLING
    with pytest.raises(ValueError, match="read-only"):
        again.lr[0] = 1.0


def test_the_policy_is_the_one_that_the_rate_is_meant_for():
    assert ONE_GROUP.policy(200) == OneCycle(max_lr=0.42, total_steps=200, pct_start=0.25)
    assert (FOUND.base_lr, FOUND.constant_lr) == (pytest.approx(0.042), pytest.approx(0.14))


def test_a_refusal_gives_nothing_and_says_why():
    assert REFUSED.max_lr is REFUSED.interval is REFUSED.base_lr is REFUSED.constant_lr is REFUSED.max_lrs is None
    with pytest.raises(SuggestionError) as caught:
        REFUSED.policy(100)
    assert str(caught.value) == (
        "there is no learning rate to give: the loss or its gradient is not finite before any training; "
        "look for NaN or infinity in the inputs, the targets, the initial weights and the gradients (a root or a "
        "logarithm of 0), and for batches of which all targets are left out: their mean loss is none"
    )
    with pytest.raises(SuggestionError, match="name must be a reading of a curve that falls, got 'valley'"):
        REFUSED.reading("valley")


def test_a_rate_from_a_curve_that_does_not_fall_says_so():
    lr = np.geomspace(1e-4, 1.0, 60)
    noise = Curve(lr, np.random.default_rng(1).standard_normal(60))
    unclear = RangeTest(
        curve=noise, stop_reason=StopReason.COMPLETED, max_lr=0.1, interval=(0.03, 0.4), max_lrs=(0.1,), num_steps=60
    )
    assert not unclear.is_clear
    assert FOUND.is_clear
    with pytest.raises(SuggestionError) as caught:
        unclear.reading("valley")
    assert str(caught.value) == (
        "name must be a reading of a curve that falls, got 'valley'; the loss of the last sweep falls by less than its "
        "noise between batches, and the rate rests on where the losses of all sweeps rise; larger batches, "
        "accumulation_steps=4 or num_steps=300 show more"
    )
    assert "The loss of the last sweep falls by less than its noise" in unclear.section().conclusion
    assert "less than its noise" not in FOUND.section().conclusion
    captions = [record.section().charts[0].caption for record in (unclear, FOUND)]
    assert ["left of where the losses rise" in caption for caption in captions] == [True, False]


def test_an_unknown_reading_lists_the_known_ones():
    with pytest.raises(ArgumentError) as caught:
        FOUND.reading("fastest")
    assert str(caught.value) == (
        "name must be one of 'minimum', 'slide', 'steepest', 'valley', got 'fastest'; pass one of these names"
    )


def test_every_refusal_has_a_remedy():
    for refusal in Refusal:
        assert refusal.remedy


def test_the_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        FOUND.max_lr = 1.0
    with pytest.raises(ValueError, match="read-only"):
        FOUND.curve.loss[0] = 0.0


@pytest.mark.parametrize("result", [FOUND, REFUSED, RangeTest(Curve([], []), StopReason.NOT_STARTED, Refusal.FROZEN)])
def test_pictures_and_pages_work_for_every_result(result):
    assert result.plot().axes
    assert "learning rate" in result._repr_html_()
    assert result.section().conclusion.startswith(str(result))


def test_the_picture_marks_the_suggestion_and_its_interval():
    (chart,) = FOUND.section().charts
    assert [(band.low, band.high) for band in chart.bands] == [(0.25, 0.6)]
    assert [(mark.name, mark.x) for mark in chart.marks] == [("max_lr 0.42", 0.42)]
    assert chart.x_log


def found_with(optimizer, batch_size=64, max_lr=0.01):
    settings = (("optimizer", optimizer), ("batch_size", batch_size))
    return RangeTest(FALLING, StopReason.DIVERGED, max_lr=max_lr, interval=(max_lr / 2, 2 * max_lr), max_lrs=(max_lr,),
                     settings=settings)  # fmt: skip


@pytest.mark.parametrize(("optimizer", "batch_size", "factor"), [
    ("SGD", 128, 2.0), ("SGD", 16, 0.25), ("AdamW", 256, 2.0), ("RMSprop", 32, 0.5**0.5), ("SGD", 256, 10**0.5),
])  # fmt: skip
def test_a_rate_is_carried_over_to_another_batch_size(optimizer, batch_size, factor):
    # The last case would be 4, but the curve's lowest point lies at 0.0316.
    result = found_with(optimizer).scaled(batch_size=batch_size)
    assert result.max_lr == pytest.approx(0.01 * factor, rel=0.1)
    assert result.interval == pytest.approx((result.max_lr / 2, 2 * result.max_lr))
    assert result.max_lrs == (result.max_lr,)
    assert dict(result.settings)["batch_size"] == batch_size


@pytest.mark.parametrize(("result", "batch_size"), [(found_with("SGD"), 1024), (found_with("LBFGS"), 64),
                                                     (found_with("SGD", None), 64)])  # fmt: skip
def test_beyond_its_limits_the_rule_says_to_measure_again(result, batch_size):
    with pytest.raises(SuggestionError, match="measure again with lr_find"):
        result.scaled(batch_size=batch_size)


def test_each_group_has_a_policy_of_its_own_and_one_for_all_warns():
    curve = Curve([1e-3, 1e-2], [1.0, 0.5])
    groups = RangeTest(
        curve=curve, stop_reason=StopReason.COMPLETED, max_lr=0.5, interval=(0.2, 1.0), max_lrs=(0.005, 0.5)
    )
    assert [policy.max_lr for policy in groups.policies(total_steps=100)] == [0.005, 0.5]
    with pytest.warns(UserWarning, match="one for each group") as caught:
        policy = groups.policy(total_steps=100)
    assert policy == OneCycle(max_lr=0.5, total_steps=100, pct_start=0.25)
    assert str(caught[0].message) == (
        "policy() is that of the fastest group alone, the groups have (0.005, 0.5); "
        "pass policies(100) to PolicyLR, one for each group"
    )


def test_a_group_whose_rate_is_zero_keeps_it():
    groups = replace(FOUND, max_lrs=(0.0, 0.42))
    assert groups.policies(10) == [
        Constant(lr=0.0, total_steps=10),
        OneCycle(max_lr=0.42, total_steps=10, pct_start=0.25),
    ]
    with pytest.warns(UserWarning, match="one for each group"):
        assert groups.policy(10).max_lr == 0.42


def test_a_sweep_that_comes_back_is_read_in_its_first_valley():
    # Down to 0.01, lost at 0.1, and lower still at 1: a destroyed model that has learned something else.
    decades = np.log10(RATES)
    loss = 3.0 - 2.0 * np.exp(-((decades + 2.0) ** 2)) - 3.0 * np.exp(-((decades / 0.4) ** 2))
    curve = Curve(RATES, loss)
    settings = (("batch_size", 32), ("optimizer", "SGD"))
    found = replace(FOUND, curve=curve, max_lr=0.005, interval=(0.002, 0.01), max_lrs=(0.005,), settings=settings)
    assert loss[-1] < loss[decades < -1.0].min()
    assert found.reading("minimum") == pytest.approx(0.01, rel=0.2)
    assert found.scaled(batch_size=128).max_lr == pytest.approx(found.reading("minimum"))


def test_what_was_scaled_is_scaled_again_from_what_was_measured():
    measured = replace(found_with("SGD"), overfit_lr=0.02)
    once = RangeTest.from_dict(json.loads(json.dumps(measured.scaled(batch_size=256).to_dict())))
    back = once.scaled(batch_size=64)
    assert (back.max_lr, back.interval, back.max_lrs) == (measured.max_lr, measured.interval, measured.max_lrs)
    assert back.overfit_lr == 0.02
    with pytest.raises(SuggestionError) as caught:
        once.scaled(batch_size=1024)
    assert str(caught.value) == (
        "batch_size must be within a factor of 4 of the measured 64, with SGD or an optimizer of Adam's kind, got 1024 "
        "with SGD; measure again with lr_find"
    )


def test_too_few_steps_name_a_number_that_is_enough():
    assert Refusal.TOO_FEW_STEPS.remedy == "start lower (start_lr=1e-9), or raise num_steps to 100"


@pytest.mark.parametrize("number", [np.int64(32), torch.tensor(32)])
def test_a_batch_size_of_another_kind_becomes_a_plain_number(number):
    result = replace(FOUND, settings=(("optimizer", "SGD"), ("batch_size", 64)))
    again = result.scaled(batch_size=number)
    assert (type(again.max_lr), type(dict(again.settings)["batch_size"])) == (float, int)
    assert again == result.scaled(batch_size=32)
    json.dumps(again.to_dict())


@pytest.mark.parametrize(
    ("measured", "batch_size", "message"),
    [
        (
            64,
            10**5000,
            "batch_size must be within a factor of 4 of the measured 64, with SGD or an optimizer of Adam's kind, "
            "got an int of 16610 bits with SGD; measure again with lr_find",
        ),
        (
            None,
            64,
            "batch_size must be compared with that of the test, got 64 after batches that do not say how many samples "
            "they have; measure again with lr_find on batches of that size",
        ),
    ],
    ids=["far too large", "never measured"],
)
def test_a_batch_size_that_cannot_be_reached_is_refused(measured, batch_size, message):
    with pytest.raises(SuggestionError) as caught:
        replace(FOUND, settings=(("optimizer", "SGD"), ("batch_size", measured))).scaled(batch_size=batch_size)
    assert str(caught.value) == message


def test_the_picture_of_a_refusal_says_why():
    refused = replace(FOUND, refusal=Refusal.UNRELATED, max_lr=None, interval=None, max_lrs=None)
    chart = refused.section().charts[0]
    reason = "nothing was learned that links the targets to the inputs"
    assert (chart.title, chart.caption) == (f"Loss against learning rate: {reason}", "")
    assert FOUND.section().charts[0].title == "Loss against learning rate"
    figure = refused.plot()
    title = figure.axes[0].get_title(loc="left")
    assert title.replace("\n", " ") == chart.title
    assert "\n" in title
