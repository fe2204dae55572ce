"""Two gloo processes: the losses of one with the doubled batch, one decision for both, the same bits resumed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys, warnings, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import cyclewise as cw

warnings.simplefilter("ignore")
folder = sys.argv[1]
num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
rank = int(os.environ.get("RANK", "0"))
PLAIN = [("plain", "arrays"), ("plain", "loader"), ("plain", "shuffled"), ("plain", "list"), ("accumulated", "loader")]
SHARED = [("nan", "loader"), ("resume", "arrays"), ("resume", "shuffled")]
size = 32 // num_ranks


def make_data(case, loader):
    generator = torch.Generator().manual_seed(0)
    inputs, held_out = torch.randn(192, 6, generator=generator), torch.randn(50, 6, generator=generator)
    targets, held_out_targets = (inputs[:, 0] > 0).long(), (held_out[:, 0] > 0).long()
    if case == "nan":
        inputs[5] = float("nan")
    train = TensorDataset(inputs, targets)
    valid = DataLoader(TensorDataset(held_out, held_out_targets), batch_size=8)
    if loader == "arrays":
        return cw.Data.from_arrays(inputs, targets, valid_fraction=0.0, batch_size=size)
    if loader == "loader":
        return cw.Data(DataLoader(train, batch_size=size), valid)
    if loader == "shuffled":
        order = torch.Generator().manual_seed(3)
        return cw.Data(DataLoader(train, batch_size=size, shuffle=True, generator=order), valid)
    return cw.Data(list(zip(inputs.split(size), targets.split(size))),
                   list(zip(held_out.split(8), held_out_targets.split(8))))


def make(case, loader):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1 if case == "resume" else 0.0), nn.Linear(16, 2))
    return cw.Learner(model, make_data(case, loader), metrics={"accuracy": cw.accuracy}, progress=False,
                      accumulation_steps=2 if case == "accumulated" else 1,
                      optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


class Dies(Exception):
    pass


class Quiet(cw.Callback):
    def on_step_end(self, learner, step, loss):
        if self.at is not None and learner.num_steps == self.at:
            raise Dies


def fit(learn, name, at):
    quiet = Quiet()
    quiet.at = at
    checkpoint = cw.Checkpoint(f"{folder}/{name}", every_steps=4)
    learn.fit_one_cycle(4, max_lr=0.1, callbacks=[quiet, checkpoint])
    return {k: v.tolist() for k, v in learn.model.state_dict().items()}


def answer(case, loader):
    if case == "resume":
        whole = fit(make(case, loader), f"whole-{loader}", None)
        try:
            fit(make(case, loader), f"cut-{loader}", 15)
        except Dies:
            pass
        learn = make(case, loader)
        step = learn.resume(f"{folder}/cut-{loader}")
        return {"step": step, "same": fit(learn, f"cut-{loader}", None) == whole}
    if case == "nan":
        try:
            make(case, loader).fit(cw.Constant(lr=0.1, total_steps=40))
        except cw.DivergedError as error:
            return {"diverged": error.step}
    learn = make(case, loader)
    found = learn.lr_find(num_steps=60)
    history = learn.fit_one_cycle(3, max_lr=0.1)
    seen = {"loss": history.loss.tolist(), "max_lr": found.max_lr, "valid": [e.valid_loss for e in history.epochs]}
    return {**seen, "scores": learn.evaluate()} if learn.data.valid_loader is not None else seen


cases = PLAIN if num_ranks == 1 else PLAIN + SHARED
with open(f"{folder}/{num_ranks}-{rank}.json", "w") as file:
    json.dump({"-".join(pair): answer(*pair) for pair in cases}, file)
if num_ranks > 1:
    torch.distributed.barrier()
    os._exit(0)  # gloo's own threads may abort the interpreter's exit
"""


def run(folder, *, num_ranks):
    script = folder / "program.py"
    script.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if num_ranks == 2 else []
    command = [sys.executable, *launcher, str(script), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{num_ranks}-{rank}.json").read_text()) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return the answers of one process, and of each of two, by case and loader."""
    folder = tmp_path_factory.mktemp("ranks")
    return [*run(folder, num_ranks=1), *run(folder, num_ranks=2)]


@pytest.mark.parametrize(("case", "loader"), [
    ("plain", "arrays"), ("plain", "loader"), ("plain", "shuffled"), ("plain", "list"), ("accumulated", "loader"),
])  # fmt: skip
def test_two_processes_give_the_losses_of_the_doubled_batch(answers, case, loader):
    one, first, second = (answer[f"{case}-{loader}"] for answer in answers)
    assert first == second
    assert len(first["loss"]) == len(one["loss"]) == (9 if case == "accumulated" else 18)
    np.testing.assert_allclose(first["loss"], one["loss"], rtol=1e-5, atol=1e-6)
    if loader != "arrays":
        np.testing.assert_allclose(list(first["scores"].values()), list(one["scores"].values()), rtol=1e-5)
        np.testing.assert_allclose(first["valid"], one["valid"], rtol=1e-5)


def test_nan_on_one_rank_ends_both_after_the_same_step(answers):
    first, second = (answer["nan-loader"] for answer in answers[1:])
    assert first == second == {"diverged": 0}


@pytest.mark.parametrize("loader", ["arrays", "shuffled"])
def test_two_processes_resume_with_the_same_bits(answers, loader):
    first, second = (answer[f"resume-{loader}"] for answer in answers[1:])
    assert first == second == {"step": 12, "same": True}
