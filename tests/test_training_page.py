"""The tutorial's blocks run in order, in an empty folder, with warnings as errors."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def test_the_blocks_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    program = "\n".join([*blocks, 'print(scores["accuracy"], tuple(outputs.shape))'])
    filters = ["-W", "error", "-W", "ignore:there is no complete checkpoint"]
    result = subprocess.run(
        [sys.executable, *filters, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    accuracy, shape = result.stdout.splitlines()[-1].split(" ", 1)
    assert float(accuracy) > 0.9
    assert shape == "(5, 10)"
    assert (tmp_path / "report.html").exists()
