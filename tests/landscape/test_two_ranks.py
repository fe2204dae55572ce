"""Two gloo processes with batches of their own measure what one process does that has them all."""

import json
import os
import subprocess
import sys

import pytest

from tests.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys
import torch, torch.distributed as dist
from torch import nn
import cyclewise as cw
from cyclewise.landscape.flow import gradient_flow
from cyclewise.landscape.inputs import measure_inputs
from cyclewise.landscape.measurements import as_json
from cyclewise.landscape.noise import gradient_noise
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.recurrence import memory

num_ranks, folder = int(os.environ.get("WORLD_SIZE", "1")), sys.argv[1]
if num_ranks > 1:
    dist.init_process_group("gloo")
rank = int(os.environ.get("RANK", "0"))
torch.set_num_threads(1)
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.case = case
        self.rnn = nn.RNN(3, 6, batch_first=True)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh(),
                                  nn.Linear(8, 2))

    def forward(self, x):
        if len(x) < 4 and self.case == "parts don't run":
            raise RuntimeError("too small a batch")
        return self.body(self.rnn(x)[0][:, -1])


# Batches of different sizes, and not as many on one rank as on the other.
CASES = {
    "parts": ([8, 10, 6], 1), "parts don't run": ([8, 10, 6], 1), "batches": ([4, 6, 5, 4, 4, 7, 4, 4, 9], 3),
    "neighbours": ([4, 5] * 13, 9),
}
DIAGNOSED = ("parts", "batches")


def normalised(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model(torch.randn(64, 12, 3) + seed)
    return model


def answer(case):
    torch.manual_seed(0)
    sizes, first = CASES[case]
    inputs, targets = torch.randn(sum(sizes), 12, 3), torch.randint(2, (sum(sizes),))
    inputs[sizes[0]:] *= 1.5
    batches = list(zip(inputs.split(sizes), targets.split(sizes)))
    mine = batches if num_ranks == 1 else batches[:first] if rank == 0 else batches[first:]
    model = Net(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    start = {k: v + 0.1 for k, v in model.state_dict().items()}

    def measured(function):
        return as_json(function(Objective(model, nn.functional.cross_entropy, mine)))

    parts = {
        "noise": measured(gradient_noise), "flow": measured(gradient_flow), "inputs": measured(measure_inputs),
        "memory": measured(memory),
        "barrier": cw.barrier(normalised(1), normalised(2), nn.functional.cross_entropy, mine, num_points=5).to_dict(),
    }
    if case not in DIAGNOSED:
        return parts
    diagnosis = cw.diagnose(model, nn.functional.cross_entropy, mine, optimizer=optimizer, start=start, budget=100)
    return {**parts, "diagnosis": diagnosis.to_dict()}


with open(f"{folder}/{num_ranks}-{rank}.json", "w") as file:
    json.dump({case: answer(case) for case in CASES}, file, default=lambda item: item.value)
if num_ranks > 1:
    dist.barrier()
    os._exit(0)  # gloo's own threads may abort the interpreter's exit
"""


def answers(tmp_path, *, num_ranks):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if num_ranks == 2 else []
    command = [sys.executable, *launcher, str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)
    assert result.returncode == 0, result.stderr
    return [json.loads((tmp_path / f"{num_ranks}-{rank}.json").read_text()) for rank in range(num_ranks)]


def leaves(value, place=""):
    """Return the numbers and words of nested JSON values by their place."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {place: value}
    found = {}
    for key, item in items:
        found |= leaves(item, f"{place}/{key}")
    return found


def assert_same(ours, others, *, rel):
    ours, others = leaves(ours), leaves(others)
    assert ours.keys() == others.keys()
    for place, value in ours.items():
        if isinstance(value, float):
            assert others[place] == pytest.approx(value, rel=rel, abs=1e-6), place
        else:
            assert others[place] == value, place


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return [*answers(folder, num_ranks=1), *answers(folder, num_ranks=2)]


@pytest.mark.parametrize("case", ["parts", "parts don't run", "batches", "neighbours"])
def test_both_ranks_have_the_numbers_of_one_process_over_all_batches(measured, case):
    one, first, second = (answer[case] for answer in measured)
    assert first == second
    for name in ("noise", "flow", "inputs", "memory", "barrier"):
        assert_same(one[name], first[name], rel=1e-3)
    assert one["memory"]["recurrences"]
    assert one["noise"]["variance"] > 0.0
    assert one["barrier"]["num_batches"] == {"parts": 3, "parts don't run": 3, "batches": 9, "neighbours": 26}[case]
    assert one["noise"]["num_parts"] == {"parts": 9, "parts don't run": 3, "batches": 9, "neighbours": 16}[case]


@pytest.mark.parametrize("case", ["parts", "batches"])
def test_both_ranks_diagnose_what_one_process_does_over_all_batches(measured, case):
    whole, first, second = (answer[case]["diagnosis"] for answer in measured)
    assert first == second
    names = ["loss", "gradient_norm", "curvature_along_gradient", "noise_scale", "signal", "layer_noises", "layers",
             "flow_factor", "flow_total", "update_factor", "inputs", "recurrences", "journey", "best_step"]  # fmt: skip
    assert_same({n: whole[n] for n in names}, {n: first[n] for n in names}, rel=1e-3)
    assert first["sharpness"]["value"] == pytest.approx(whole["sharpness"]["value"], rel=0.01)
    assert first["settings"]["num_batches"] == whole["settings"]["num_batches"]
    assert [f["kind"] for f in first["findings"]] == [f["kind"] for f in whole["findings"]]


TWO_RANKS = """
import os, torch, torch.distributed as dist
from torch import nn
from cyclewise.landscape.objective import Objective
from cyclewise.landscape.spectrum import spectrum

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
inputs, targets = torch.randn(12, 4), torch.randint(3, (12,))
model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))
batches = list(zip(inputs.split(4), targets.split(4)))
mine = batches[:1] if rank == 0 else batches[1:]
found = []
for chosen, parallel in ((mine, True), (batches, False)):
    if not parallel:
        dist.destroy_process_group()
    objective = Objective(nn.parallel.DistributedDataParallel(model) if parallel else model,
                          nn.functional.cross_entropy, chosen)
    found.append(torch.cat([torch.tensor([objective.loss()]), objective.gradient(),
                            objective.product(torch.arange(objective.num_parameters) / 10)]))
assert torch.allclose(*found, atol=1e-5), found
os._exit(0)
"""


def test_two_ranks_measure_the_mean_over_all_their_batches(tmp_path):
    run_on_two_ranks(TWO_RANKS, tmp_path)
