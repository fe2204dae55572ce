"""The README says nothing that isn't true: its code runs, its names and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import cyclewise
from scripts.readme_example import README, code

ROOT = README.parent


def test_the_examples_run(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code()], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    found, accuracy, history = result.stdout.splitlines()
    assert found.startswith("max_lr ")
    assert float(accuracy.rpartition(" ")[2]) > 0.9
    assert "accuracy" in history
    assert (tmp_path / "report.html").exists()


def test_links_and_pictures_exist():
    for page in (README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_name_it_uses_is_public():
    names = set(re.findall(r"\bcw\.(\w+)", README.read_text()))
    assert names <= set(cyclewise.__all__)


def test_make_targets_exist():
    makefile = Path(ROOT / "Makefile").read_text()
    for page in (README, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"^make ([a-z-]+)", page.read_text(), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_gallery_is_what_its_code_makes():
    from docs.gallery import ENTRIES, PAGE, PICTURES, page, picture_of, policy_of

    assert PAGE.read_text() == page(), "run `make docs`"
    for title, _, line in ENTRIES:
        assert policy_of(line).total_steps >= 500
        assert (PICTURES / picture_of(title)).read_bytes().startswith(b"\x89PNG")


def test_the_gallery_shows_every_policy():
    from cyclewise.policies import registered_policies
    from docs.gallery import ENTRIES, policy_of

    ours = {policy for policy in registered_policies() if policy.__module__.startswith("cyclewise.")}
    assert {type(policy_of(line)) for _, _, line in ENTRIES} == ours
