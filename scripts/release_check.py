"""Build wheel and sdist, install the wheel into an empty environment, and run the README's example from there."""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from readme_example import code

ROOT = Path(__file__).parents[1]
# Without these an installed package would import and then fail when it is used.
NEEDED_IN_WHEEL = ("cyclewise/py.typed", "cyclewise/report/templates/report.html.j2")
NEEDED_IN_SDIST = ("LICENSE", "README.md", "constraints.txt", "src/cyclewise/py.typed", "tests/conftest.py")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command, show it, and return what it printed."""
    print("+", *command, flush=True)
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    """Run the check; any failure is an exception."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT)
        (wheel,) = (work / "dist").glob("*.whl")
        (sdist,) = (work / "dist").glob("*.tar.gz")
        _check_contents(wheel, sdist)
        venv.create(work / "venv", with_pip=True)
        python = work / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel)
        run(python, "-m", "pip", "check")
        # From an empty folder, so that nothing but the wheel can be imported.
        empty = work / "empty"
        empty.mkdir()
        (empty / "example.py").write_text(code())
        print(run(python, "-W", "error", "example.py", cwd=empty))
        if not (empty / "report.html").stat().st_size:
            raise SystemExit("the README's example wrote an empty report.html")
        print(run(work / "venv" / "bin" / "cyclewise", "find", ROOT / "examples" / "mlp.py:make_learner", cwd=empty))
    print("release check passed")


def _check_contents(wheel: Path, sdist: Path) -> None:
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in NEEDED_IN_WHEEL if name not in in_wheel]
    missing += [name for name in NEEDED_IN_SDIST if name not in in_sdist]
    if missing:
        raise SystemExit(f"missing from the packages: {', '.join(missing)}")


if __name__ == "__main__":
    main()
