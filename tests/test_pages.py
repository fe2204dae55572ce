"""The pages' blocks run in order, in an empty folder, with warnings as errors."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_blocks_of_the_training_page_run(tmp_path):
    program = "\n".join([*blocks_of("training.md"), 'print(scores["accuracy"], tuple(outputs.shape))'])
    filters = ["-W", "error", "-W", "ignore:there is no complete checkpoint"]
    result = subprocess.run(
        [sys.executable, *filters, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    accuracy, shape = result.stdout.splitlines()[-1].split(" ", 1)
    assert float(accuracy) > 0.9
    assert shape == "(5, 10)"
    assert (tmp_path / "report.html").exists()


def test_the_blocks_of_the_diagnosis_page_run(tmp_path):
    program = "\n".join([*blocks_of("diagnosis.md"), "print(diagnosis.findings[0].kind)"])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "unstable_step"
    assert (tmp_path / "diagnosis.html").exists()
