from cyclewise.experiments.contest import Contest, Entry
from cyclewise.training import History
from cyclewise.training.history import Epoch

PICKED = " The best constant rate was picked from its grid by these very results, which favours it."


def history(accuracy):
    return History(epochs=(Epoch(12, 0.4, 0.25, {"accuracy": accuracy}, 1.5),))


def contest(*, one_cycle, constant):
    entries = [
        Entry(name, lr, tuple(None if score is None else history(score) for score in scores))
        for name, lr, scores in (("one-cycle", 0.3, one_cycle), ("best constant rate", 0.1, constant))
    ]
    return Contest(entries[0], entries[1], (entries[1],), tuple(range(len(one_cycle))))


def test_several_seeds_show_a_spread():
    several = contest(one_cycle=[0.98, 0.96], constant=[0.9, 0.9])
    assert [row[2:4] for row in several.table().rows] == [
        ["97.00 ± 1.00", "0.2500 ± 0.0000"],
        ["90.00 ± 0.00", "0.2500 ± 0.0000"],
    ]
    assert several.table().caption == f"Mean ± standard error over n=2 seeds [0, 1].{PICKED}"
    assert str(several) == (
        "accuracy after 0 steps: one-cycle 97.00 ± 1.00 %, best constant rate 90.00 ± 0.00 % "
        "(mean ± standard error, n=2)"
    )


def test_one_seed_shows_none_and_is_said_to():
    one = contest(one_cycle=[0.98], constant=[0.9])
    assert [row[2:4] for row in one.table().rows] == [["98.00", "0.2500"], ["90.00", "0.2500"]]
    assert one.table().caption == f"One run each, with seed 0, which shows no spread.{PICKED}"
    assert str(one) == (
        "accuracy after 0 steps: one-cycle 98.00 %, best constant rate 90.00 % (n=1: one seed shows no spread)"
    )
    assert "nan" not in one.section().conclusion


def test_a_policy_with_a_run_that_diverged_has_no_mean():
    torn = contest(one_cycle=[0.98, 0.96], constant=[0.9, None])
    assert torn.table().rows[1][2:4] == ["1 of 2 diverged", ""]
    assert str(torn) == (
        "accuracy after 0 steps: one-cycle 97.00 ± 1.00 %, best constant rate 1 of 2 diverged "
        "(mean ± standard error, n=2)"
    )
