"""The range test on two processes: one answer, and no rank waits for ever."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, torch, torch.distributed as dist
import cyclewise as cw
from torch import nn

case = sys.argv[1]
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
inputs = torch.randn(640, 10)
targets = (inputs @ torch.randn(10, 3)).argmax(dim=1)
batches = list(zip(inputs.split(32), targets.split(32)))[rank::2]
if case == "short" and rank == 1:
    batches = batches[:3]
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

def loss_fn(outputs, targets):
    loss = nn.functional.cross_entropy(outputs, targets)
    return loss * float("nan") if case == "nan" and rank == 1 and optimizer.param_groups[0]["lr"] > 1.0 else loss

before = [p.detach().clone() for p in model.parameters()]
result = cw.lr_find(model, optimizer, loss_fn, batches)
assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
gathered = [None, None]
dist.all_gather_object(gathered, result.to_dict())
assert gathered[0] == gathered[1], gathered
if case == "nan":
    assert max(result.curve.lr[:-1]) <= 1.0 and result.max_lr < 1.0, result
else:
    assert result.max_lr is not None, result
dist.barrier()
# gloo's own threads may abort the interpreter's exit; whatever failed before here has already said so.
os._exit(0)
"""


@pytest.mark.parametrize("case", ["plain", "short", "nan"])
def test_both_ranks_get_the_same_answer(tmp_path, case):
    script = tmp_path / "two_ranks.py"
    script.write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
        case,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
