"""The table of ensembles on the training page holds what the benchmark stored, with the spread that it names."""

import json
from pathlib import Path

import pytest

from cyclewise.comparison.statistics import mean_and_error

ROOT = Path(__file__).parents[2]
NAMES = {
    "half a cosine": "one model, half a cosine",
    "SGDR, last snapshot": "SGDR's last snapshot",
    "SGDR, last three snapshots": "its last three, averaged",
    "SGDR, five snapshots": "all five, averaged",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_ensembles_is_that_of_the_stored_runs(name):
    page = (ROOT / "docs" / "training.md").read_text()
    runs = json.loads((ROOT / "benchmarks" / "results" / "snapshot_ensemble.json").read_text())["result"]["runs"]
    cells = []
    for score in ("accuracy", "loss", "calibration_error"):
        mean, error = mean_and_error([run[name][score] for run in runs])
        cells.append(f"{mean:.3f} ± {error:.3f}")
    assert f"| {NAMES[name]} | {' | '.join(cells)} |" in page
    assert len(runs) == 10
    assert "mean ± standard error over ten seeds" in page
