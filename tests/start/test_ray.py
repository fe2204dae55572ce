import subprocess
import sys

import pytest

pytest.importorskip("ray")

# In a process of its own: Ray leaves threads and handlers behind.
PROGRAM = """
import torch
from torch import nn
import cyclewise as cw

torch.manual_seed(0)
model = nn.Linear(3, 4)

def objective(candidate):
    return float((candidate.weight.detach().norm() - 2) ** 2)

arguments = {"budget": 12, "deterministic": True}
local = cw.search_start(cw.LayerGains(model), objective, **arguments)
ray = cw.search_start(cw.LayerGains(model), objective, engine="ray", workers=2, **arguments)
assert local.evaluations == ray.evaluations
print("done")
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_finds_what_one_process_finds(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    run = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("done\n")
