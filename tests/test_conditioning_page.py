"""The page's blocks run in order, with warnings as errors, and print what stands under them."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "conditioning.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
END = "--- end of block ---"


def test_the_blocks_print_what_the_page_says():
    text = PAGE.read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python")  # every block has its output under it
    program = "\n".join(f"{code}\nprint({END!r})" for code, _ in blocks)
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    printed = result.stdout.split(f"{END}\n")[:-1]
    assert printed == [output for _, output in blocks]
