"""The range test on two processes: one answer, and no rank waits for ever."""

import json
import subprocess
import sys

import pytest

import cyclewise as cw

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys, torch, torch.distributed as dist
import cyclewise as cw
from torch import nn

dist.init_process_group("gloo")
rank = dist.get_rank()


def answer(case):
    torch.manual_seed(0)
    inputs = torch.randn(640, 10)
    targets = (inputs @ torch.randn(10, 3)).argmax(dim=1)
    if case == "unrelated":
        targets = targets[torch.randperm(len(targets))]
    batches = list(zip(inputs.split(32), targets.split(32)))[rank::2]
    if case == "short" and rank == 1:
        batches = batches[:3]
    if case == "uneven":  # one ends within the test, the other does not
        batches = (batches * 6)[: 58 - rank]
    if case == "halved":
        batches = [pair for both in batches for pair in zip(*(part.split(8) for part in both))]
        batches = batches[: 40 // (rank + 1)]
    if case == "tiny" and rank == 1:  # too few samples to exchange their targets
        batches = [(part[:2], own[:2]) for part, own in batches]
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if case == "halved":
        optimizer = torch.optim.Adam(model.parameters())

    def loss_fn(outputs, targets):
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss * float("nan") if case == "nan" and rank == 1 and optimizer.param_groups[0]["lr"] > 1.0 else loss

    before = [p.detach().clone() for p in model.parameters()]
    result = cw.lr_find(model, optimizer, loss_fn, batches)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    return result.to_dict()


answers = {case: answer(case) for case in ("plain", "short", "uneven", "halved", "nan", "tiny", "unrelated")}
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(answers, file)
dist.barrier()
# gloo's own threads may abort the interpreter's exit; whatever failed before here has already said so.
os._exit(0)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "two_ranks.py"
    script.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder)], capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def of_both_ranks(answers, case):
    first, second = (cw.RangeTest.from_dict(answer[case]) for answer in answers)
    assert first == second
    return first


def test_both_ranks_refuse_unrelated_targets_by_what_the_data_of_all_say(answers):
    result = of_both_ranks(answers, "unrelated")
    assert result.refusal in (cw.Refusal.UNRELATED, cw.Refusal.NO_IMPROVEMENT)
    assert result.related is False


@pytest.mark.parametrize("case", ["plain", "short", "uneven", "halved", "nan", "tiny"])
def test_both_ranks_get_the_same_answer(answers, case):
    first = of_both_ranks(answers, case)
    assert first.max_lr is not None
    # Of both ranks together, as an update sees them.
    assert dict(first.settings)["batch_size"] == {"halved": 16, "tiny": 34}.get(case, 64)
    if case == "nan":
        assert max(first.curve.lr[:-1]) <= 1.0
        assert first.max_lr < 1.0
