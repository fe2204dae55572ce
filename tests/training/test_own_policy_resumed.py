"""A fit by a user's own plain policy goes on in another process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
import cyclewise as cw
from tests.training.cut_off import DieAt, Dies, Quiet, bits, make_learner

class Plain(cw.Policy):
    def __init__(self, top):
        self.total_steps, self._top = 12, top

    def value(self, step):
        return self._top / (1 + step)

def script(learn, directory, death, top):
    learn.fit(Plain(0.2), callbacks=[cw.Checkpoint(directory, every_steps=1), death])
    learn.fit(cw.Join([Plain(top), Plain(0.05)]), callbacks=[cw.Checkpoint(directory, every_steps=1), death])

directory, what = sys.argv[1:]
learn = make_learner()
if what == "cut":
    try:
        script(learn, directory, DieAt(17), 0.1)
    except Dies:
        print("died")
else:
    learn.resume(directory)
    try:
        script(learn, directory, Quiet(), 0.3)
    except cw.CheckpointError as error:
        print(error)
    learn = make_learner()
    print(learn.resume(directory))
    script(learn, directory, Quiet(), 0.1)
    whole = make_learner()
    script(whole, directory + "-whole", Quiet(), 0.1)
    print(all(torch.equal(one, other) for one, other in zip(bits(learn).values(), bits(whole).values(), strict=True)))
"""


def run(*arguments):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=100).stdout


@pytest.mark.timeout(300)
def test_it_goes_on_with_the_same_bits_and_another_one_is_refused(tmp_path):
    assert run(tmp_path / "run", "cut") == "died\n"
    refusal, step, is_same = run(tmp_path / "run", "resume").splitlines()
    assert refusal == (
        "fit 2 of the saved run has the policy Join(policies=(Plain(total_steps=12, _top=0.1), "
        "Plain(total_steps=12, _top=0.05))), got Join(policies=(Plain(total_steps=12, _top=0.3), "
        "Plain(total_steps=12, _top=0.05))); after resume() make the same calls in the same order; "
        "to train on in another way use learn.load(directory) instead"
    )
    assert step in ("16", "17")
    assert is_same == "True"
