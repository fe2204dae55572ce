"""Each rule on numbers made by hand: just beyond its threshold, just inside, and what it says to do."""

import dataclasses

import pytest

from cyclewise.errors import ArgumentError
from cyclewise.landscape.cliffs import Descent
from cyclewise.landscape.diagnosis import Diagnosis
from cyclewise.landscape.findings import KINDS, SEVERITIES, Finding
from cyclewise.landscape.flow import LayerFlow
from cyclewise.landscape.journey import Journey
from cyclewise.landscape.measurements import Eigenvalue, Inputs, Profile, Signal
from cyclewise.landscape.recurrence import Recurrence
from cyclewise.landscape.rules import judge


def healthy(**changes):
    """A healthy place: loss 1, gradient 1, parameters 10, curvature -1 to 10, half of the stable rate."""
    record = Diagnosis(
        loss=1.0,
        num_parameters=100,
        gradient_norm=1.0,
        parameter_norm=10.0,
        sharpness=Eigenvalue(10.0, 1e-3),
        lambda_min=Eigenvalue(-1.0, 1e-3),
        condition_number=1e7,
        condition_is_lower_bound=True,
        lr=0.1,
        stability_limit=0.2,
        taylor=line(actual=(-0.05, -0.3)),
        own_step=line(actual=(-0.05, -0.1)),
        signal=Signal(0.9, 0.1, 30.0, 0.3, 32.0, 256, lowest_scale=27.0, highest_scale=43.0),
        profiles=(Profile("smallest curvature", (-1.0, 0.0, 1.0), (1.1, 1.0, 0.9)),),
        settings={"optimizer": "SGD"},
    )
    return dataclasses.replace(record, **changes)


def line(actual, factors=(0.5, 1.0), predicted=(-0.05, -0.1), norms=(1.0, 1.0)):
    return Descent(factors, predicted, actual, (1.0,) * len(factors), norms, 1.0, 1e-6)


def layers(*norms, dead=0.0, kind="relu"):
    return tuple(
        LayerFlow(f"layer{i}", norm, 1.0, 0.1, kind, 32, dead if kind == "relu" else None, dead, None)
        for i, norm in enumerate(norms)
    )


def recurrence(factor, num_steps, reads_end=True):
    influence = tuple(factor**k for k in range(num_steps))
    return Recurrence("rnn", num_steps, influence, factor, 0.001, influence, reads_end, 16)


def found(**changes):
    return [(finding.kind, finding.severity) for finding in judge(healthy(**changes))]


def test_nothing_stands_in_the_way_of_a_healthy_run():
    assert judge(healthy()) == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": 0.2}, [("unstable_step", "info")]),  # the edge of stability is normal
        ({"lr": 2.0, "own_step": line(actual=(3.0, 9.0))}, [("unstable_step", "severe")]),
        ({"lr": 2.0}, [("unstable_step", "warning")]),  # its next step still goes down
        ({"lr": 2.0, "settings": {"optimizer": "RMSprop"}}, [("unstable_step", "info")]),
        ({"lr": 20.0, "stability_limit": None}, []),  # no limit, and its own step goes down as predicted
        (
            {"stability_limit": None, "own_step": line(actual=(1.0, 8.0), predicted=(2.0, 9.0))},
            [("unstable_step", "severe")],
        ),
        ({"own_step": line(actual=(-0.05, 40.0), norms=(1.0, 80.0))}, [("cliff", "severe")]),
        ({"own_step": line(actual=(-0.05, float("inf")), norms=(1.0, float("inf")))}, [("cliff", "severe")]),
        ({"own_step": line(actual=(-0.05, 0.1), norms=(1.0, 1.1))}, []),
        ({"layers": layers(1.0, 1.0, dead=0.5)}, []),
        ({"layers": layers(1.0, 1.0, dead=0.65)}, [("dead_units", "warning")]),
        ({"layers": layers(1.0, 1.0, dead=0.9)}, [("dead_units", "severe")]),
        (
            {"layers": layers(1e-6, 1e-4, 1e-2, 1.0, dead=0.9), "flow_total": 1e-6, "flow_factor": 0.01},
            [("vanishing_gradients", "severe")],  # dead units follow from it
        ),
        (
            {"layers": layers(1e6, 1e4, 1e2, 1.0), "flow_total": 1e6, "flow_factor": 100.0},
            [("exploding_gradients", "severe")],
        ),
        ({"layers": layers(0.1, 0.5, 0.5, 1.0), "flow_total": 0.1, "flow_factor": 0.5}, []),
        ({"recurrences": (recurrence(0.9, 100),)}, [("fading_memory", "severe")]),
        ({"recurrences": (recurrence(0.6, 28),)}, [("fading_memory", "warning")]),  # gates open by training
        ({"recurrences": (recurrence(0.6, 60),)}, [("fading_memory", "severe")]),
        ({"recurrences": (recurrence(0.9, 100, reads_end=False),)}, []),
        ({"recurrences": (recurrence(0.5, 12),)}, []),  # short sequences bridge it
        ({"recurrences": (recurrence(1.1, 100),)}, [("exploding_memory", "severe")]),
        ({"recurrences": (recurrence(1.0005, 100),)}, []),  # within its standard error of 1
        (
            {"inputs": (Inputs("0", 1e6, 1.0, 0.0),)},
            [("ill_conditioned", "severe")],
        ),
        ({"inputs": (Inputs("0", 2.0, 0.01, 0.9),)}, []),
        (
            {"condition_number": 1e6, "lambda_min": Eigenvalue(1e-5, 1e-7)},
            [("ill_conditioned", "warning")],
        ),
        ({"condition_number": 1e6}, []),  # away from a minimum the smallest positive eigenvalue says nothing
        (
            {"signal": Signal(0.0, 0.1, 30.0, 3.0, 1.0, 24, lowest_scale=20.0)},
            [("noise_dominated", "warning")],
        ),
        (
            {"signal": Signal(0.0, 0.1, 3e3, 3.0, 64.0, 512, lowest_scale=2e3)},
            [("noise_dominated", "info")],  # late in training every batch is noise
        ),
        (
            {"gradient_norm": 1e-8, "sharpness": Eigenvalue(1e-7, 0.0), "lambda_min": Eigenvalue(-1e-7, 0.0)},
            [("plateau", "severe")],
        ),
        (
            {
                "gradient_norm": 1e-3,
                "taylor": line(actual=(-1e-6, -1e-6)),
                "profiles": (Profile("smallest curvature", (-1.0, 0.0, 1.0), (0.5, 1.0, 0.5)),),
            },
            [("saddle", "severe")],
        ),
    ],
)  # fmt: skip
def test_rules(changes, expected):
    assert found(**changes) == expected


# No slope and, beside a loss of 100, next to no curvature for parameters of length 1; convex.
FLAT = {
    "loss": 100.0, "gradient_norm": 1e-6, "parameter_norm": 1.0, "sharpness": Eigenvalue(2.0, 1e-6),
    "lambda_min": Eigenvalue(1.0, 1e-6), "condition_number": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "is_plateau"),
    [
        # Samples that contradict each other, each with a slope of its own: a minimum, and noise is left.
        ({"signal": Signal(-1.0, 0.6, 256.0, 1.0, 32.0, 256)}, False),
        # Samples that have no slope either.
        ({"signal": Signal(-1e-8, 1e-8, 1e-6, 1e-5, 32.0, 256)}, True),
        # All samples agree on where to go, however little that helps.
        ({"signal": Signal(1e-12, 1e-14, 256.0, 1e-8, 32.0, 256)}, True),
        ({"signal": Signal(-1.0, 0.6, 256.0, 1.0, 32.0, 256), "lambda_min": Eigenvalue(-1.0, 1e-6)}, True),
        ({"signal": None}, True),
    ],
)
def test_a_minimum_with_noise_left_in_it_is_no_plateau(changes, is_plateau):
    kinds = [kind for kind, _ in found(**{**FLAT, **changes})]
    assert ("plateau" in kinds) is is_plateau


def test_negative_curvature_alone_is_no_saddle():
    # The gradient offers as much as the direction of negative curvature.
    deep = (Profile("smallest curvature", (-1.0, 0.0, 1.0), (0.4, 1.0, 0.4)),)
    assert found(profiles=deep, taylor=line(actual=(-0.1, -0.5))) == []
    # Within its residual the smallest eigenvalue may as well be zero.
    flat = {"profiles": deep, "taylor": line(actual=(0.0, 0.0)), "lambda_min": Eigenvalue(-1e-3, 1e-3)}
    assert found(condition_number=None, **flat) == []


# Along its negative curvature the loss falls by 0.5 within 1, and the gradient (norm 0.2) offers a hundredth of that.
ON_A_SADDLE = {
    "gradient_norm": 0.2,
    "taylor": line(actual=(-0.004, -0.005)),
    "profiles": (Profile("smallest curvature", (-1.0, 0.0, 1.0), (0.5, 1.0, 0.5)),),
}


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        # The same place, the same gradient: its own noise decides.
        (Signal(-0.01, 0.02, 12.8, 0.2, 32.0, 256), [("saddle", "severe")]),
        (Signal(0.0399, 0.001, 0.0256, 0.01, 32.0, 256), []),
        # Twenty times as long as its noise: a standard error that is as large because the gradient is says nothing.
        (Signal(0.0399, 0.03, 0.0256, 0.01, 32.0, 256), []),
        # Shorter than twice its noise, but of many directions, so that its squared norm is known to be above zero.
        (Signal(0.03, 0.002, 2.56, 0.11, 32.0, 256), []),
        (Signal(0.03, None, 2.56, 0.11, 32.0, 64), [("saddle", "severe")]),  # two parts know no standard error
        (None, []),  # without its noise only a gradient that is all but zero can tell
    ],
)
def test_the_gradients_own_noise_decides_on_a_saddle(signal, expected):
    kinds = [(kind, severity) for kind, severity in found(signal=signal, **ON_A_SADDLE) if kind != "noise_dominated"]
    assert kinds == expected


@pytest.mark.parametrize(("gradient_norm", "is_saddle"), [(0.024, True), (0.026, False)])
@pytest.mark.parametrize("signal", [None, Signal(1e-4, 1e-6, 1e-6, 1e-4, 32.0, 256)])
def test_without_noise_a_gradient_short_beside_the_slope_on_the_way_down_is_a_saddles(gradient_norm, is_saddle, signal):
    kinds = found(signal=signal, **{**ON_A_SADDLE, "gradient_norm": gradient_norm})
    assert kinds == ([("saddle", "severe")] if is_saddle else [])


def test_a_saddle_says_what_its_gradient_was_held_against():
    within = judge(healthy(signal=Signal(-0.01, 0.02, 12.8, 0.2, 32.0, 256), **ON_A_SADDLE))[0]
    assert "the gradient is within its own noise" in within.summary
    assert "norm 0.2; its noise alone 0.2" in within.evidence
    zero = judge(healthy(signal=None, **{**ON_A_SADDLE, "gradient_norm": 1e-3}))[0]
    assert "the gradient is all but zero" in zero.summary
    assert "norm 0.001; its noise alone not known" in zero.evidence


def test_a_hump_on_the_way_from_the_start():
    journey = Journey(9.0, 1.0, (0.0, 0.5, 1.0), (2.0, 5.0, 1.0), 3.5, 0.1, 0.1, 95.0, 90.0, 1.0)
    (finding,) = judge(healthy(journey=journey))
    assert (finding.kind, finding.severity) == ("distant_minimum", "warning")
    assert "95 degrees" in finding.evidence
    assert "search_start" in finding.remedy
    noisy = dataclasses.replace(journey, std_error=2.0)
    assert judge(healthy(journey=noisy)) == ()


def test_two_solutions_with_a_hump_between_them():
    journey = Journey(9.0, 1.0, (0.0, 0.5, 1.0), (1.01, 5.0, 1.0), 3.5, 0.1, 0.1, 95.0, 90.0, 1e-3)
    (finding,) = judge(healthy(journey=journey))
    assert (finding.kind, finding.severity) == ("distinct_minima", "info")
    assert "ensemble" in finding.remedy


def test_severe_ones_come_first_and_causes_before_what_they_cause():
    both = judge(
        healthy(
            lr=2.0,
            own_step=line(actual=(3.0, 9.0)),
            recurrences=(recurrence(1.1, 100),),
            inputs=(Inputs("0", 200.0, 1.0, 0.0),),
        )
    )
    assert [(f.kind, f.severity) for f in both] == [
        ("exploding_memory", "severe"),
        ("unstable_step", "severe"),
        ("ill_conditioned", "warning"),
    ]


def test_remedies_carry_numbers():
    remedies = {
        f.kind: f.remedy
        for changes in (
            {"lr": 2.0, "own_step": line(actual=(3.0, 9.0))},
            {"own_step": line(actual=(-0.05, 40.0), norms=(1.0, 80.0))},
            {"recurrences": (recurrence(0.9, 100),)},
            {"recurrences": (recurrence(1.1, 100),)},
            {"signal": Signal(0.0, 0.1, 30.0, 3.0, 1.0, 24, lowest_scale=20.0)},
        )
        for f in judge(healthy(**changes))
    }
    assert "Lower max_lr to 0.1," in remedies["unstable_step"]
    assert remedies["cliff"] == "Clip the gradient at norm 0.5, or lower max_lr to 0.05."
    assert "bias 4.6" in remedies["fading_memory"]
    assert "the last 44 steps" in remedies["fading_memory"]
    assert "Clip the gradient at norm 1," in remedies["exploding_memory"]  # 0.01 * 10 / 0.1
    assert remedies["noise_dominated"].startswith("Accumulate 16 batches per step (about 16 samples)")


def test_every_kind_of_the_contract_is_known():
    assert set(KINDS) == set(
        "ill_conditioned unstable_step saddle plateau cliff exploding_gradients vanishing_gradients dead_units "
        "exploding_memory fading_memory noise_dominated distinct_minima distant_minimum".split()
    )
    assert SEVERITIES == ("info", "warning", "severe")
    with pytest.raises(ArgumentError, match="kind must be one of"):
        Finding("slow", "info", "", "", "")


def test_judging_is_pure_and_needs_only_what_is_there():
    assert judge(Diagnosis(loss=1.0, num_parameters=3)) == ()
