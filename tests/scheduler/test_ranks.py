"""A rule on two processes: the same decisions on both, from the mean of their losses."""

import pytest

from tests.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import os, torch, torch.distributed as dist
import cyclewise as cw
dist.init_process_group("gloo")
rule = cw.CycleOnPlateau(base_lr=0.1, max_lr=0.5, cycle_steps=4, patience=3, smoothing=0.0)
optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
scheduler = cw.PolicyLR(optimizer, rule)
rates = []
for step in range(12):
    # Rank 0's loss improves, rank 1's gets worse by as much: their mean is stuck.
    scheduler.step(loss=1.0 - 0.05 * step if dist.get_rank() == 0 else 1.0 + 0.05 * step)
    rates.append(round(optimizer.param_groups[0]["lr"], 6))
gathered = [None, None]
dist.all_gather_object(gathered, rates)
assert gathered[0] == gathered[1], gathered
assert max(rates) == 0.5, rates
dist.barrier()
# gloo's own threads may abort the interpreter's exit; whatever failed before here has already said so.
os._exit(0)
"""


def test_a_rule_averages_the_loss_over_ranks(tmp_path):
    run_on_two_ranks(PROGRAM, tmp_path)
