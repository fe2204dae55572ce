"""The pages' blocks run in order, in an empty folder, with warnings as errors, and print what stands under them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
WITH_OUTPUT = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
WITH_OUTPUTS = ("understanding-learning-rates.md", "faq.md", "comparing.md", "explanation/conditioning.md")
END = "--- end of block ---"


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def run(program, folder, *filters):
    command = [sys.executable, "-W", "error", *filters, "-c", program]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_every_block_prints_what_stands_under_it(tmp_path):
    """One process for these pages, each in a namespace of its own: most of the time would be imports."""
    blocks = {page: WITH_OUTPUT.findall((DOCS / page).read_text()) for page in WITH_OUTPUTS}
    for page, pairs in blocks.items():
        assert len(pairs) == len(blocks_of(page)), page
    programs = ["\n".join(f"{code}\nprint({END!r})" for code, _ in pairs) for pairs in blocks.values()]
    check = 'print(float((model(inputs).argmax(1) == targets).float().mean()), learn.evaluate()["accuracy"])'
    programs.append("\n".join([*blocks_of("index.md"), check]))
    *printed, rest = run("\n".join(f"exec({program!r}, {{}})" for program in programs), tmp_path).split(f"{END}\n")
    assert printed == [output for pairs in blocks.values() for _, output in pairs]
    by_hand_then_learner = [float(number) for number in rest.splitlines()[-1].split()]
    assert min(by_hand_then_learner) > 0.85
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_blocks_of_the_page_on_starting_points_run(tmp_path):
    pairs = WITH_OUTPUT.findall((DOCS / "starting-points.md").read_text())
    assert len(pairs) == len(blocks_of("starting-points.md"))
    assert run("\n".join(code for code, _ in pairs), tmp_path) == "".join(output for _, output in pairs)


@pytest.mark.slow
def test_the_blocks_of_the_training_page_run(tmp_path):
    program = "\n".join([*blocks_of("training.md"), 'print(scores["accuracy"], tuple(outputs.shape))'])
    printed = run(program, tmp_path, "-W", "ignore:there is no complete checkpoint")
    accuracy, shape = printed.splitlines()[-1].split(" ", 1)
    assert float(accuracy) > 0.9
    assert shape == "(5, 10)"
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_blocks_of_the_diagnosis_page_run(tmp_path):
    printed = run("\n".join([*blocks_of("diagnosis.md"), "print(diagnosis.findings[0].kind)"]), tmp_path)
    assert printed.splitlines()[-1] == "unstable_step"
    assert (tmp_path / "diagnosis.html").exists()
