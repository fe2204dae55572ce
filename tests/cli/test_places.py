import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cyclewise import ArgumentError
from cyclewise.cli import app, places

NOWHERE = "nowhere.py:make_learner"  # never loaded where a place is refused: that comes first


@pytest.fixture
def _disk(monkeypatch):
    """A disk that nothing can be written to; as a superuser, the modes of a folder would not do."""

    def refuse(**arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(places, "NamedTemporaryFile", refuse)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


EVERY_PLACE = [
    ("find", NOWHERE, "--html", "out"),
    ("fit", NOWHERE, "--html", "out"),
    ("fit", NOWHERE, "--run", "out"),
    ("diagnose", NOWHERE, "--html", "out"),
    ("compare", NOWHERE, "--html", "out"),
    ("compare", NOWHERE, "--store", "out"),
    ("search", NOWHERE, "--html", "out"),
    ("search", NOWHERE, "--save", "out"),
    ("search", NOWHERE, "--checkpoint", "out"),
    ("demo", "--html", "out"),
    ("experiment", "9", "--out", "out"),
    ("experiment", "9", "--store", "out"),
    ("policy", "constant", "--lr", "0.1", "--total-steps", "3", "--save", "out.png"),
]


@pytest.mark.usefixtures("_disk")
@pytest.mark.parametrize("arguments", EVERY_PLACE, ids=lambda arguments: f"{arguments[0]} {arguments[-2]}")
def test_what_cannot_be_written_to_is_refused_before_the_work(arguments):
    result = run(*arguments)
    # An experiment writes a report even when none is asked for, and that is tried first.
    option, path = ("--out", "report.html") if "--store" in arguments and "9" in arguments else arguments[-2:]
    message = f"{option} must be a place that can be written to, got '{path}' (Read-only file system)"
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {message}; pass another path\n"


@pytest.mark.parametrize(
    "arguments", [place for place in EVERY_PLACE if place[-2] in ("--html", "--save", "--out")], ids=lambda a: a[0]
)
def test_a_file_in_a_folder_that_is_not_there_is_refused_before_the_work(arguments):
    path = f"no/{arguments[-1]}"
    result = run(*arguments[:-1], path)
    message = f"{arguments[-2]} must be a file in a folder that is there, got '{path}'; make the folder 'no' first"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    Path("folder").mkdir()
    Path("file").touch()
    os.mkfifo("pipe")
    refused = [
        (places.check_file, "html", "folder", "must be a file, got the folder 'folder'; add a name: 'folder/html'"),
        (places.check_file, "html", "pipe", "must be a regular file, got 'pipe'; pass the name of a file to write"),
        (places.check_folder, "store", "file", "must be a folder, got 'file', where 'file' is no folder; "
         "pass another path"),
        (places.check_folder, "store", "file/in/it", "must be a folder, got 'file/in/it', where 'file' is no folder; "
         "pass another path"),
    ]  # fmt: skip
    for check, option, path, message in refused:
        with pytest.raises(ArgumentError) as caught:
            check(option, Path(path))
        assert str(caught.value) == f"{option} {message}"
    with pytest.raises(ArgumentError) as caught:
        places.check_file("checkpoint", Path("file/x"), makes_folder=True)
    assert str(caught.value) == (
        "checkpoint must be a file in a folder, got 'file/x', where 'file' is no folder; pass another path"
    )


def test_a_file_that_is_there_must_be_one_that_can_be_written(monkeypatch):
    def refuse(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    Path("file").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArgumentError) as caught:
        places.check_file("html", Path("file"))
    assert str(caught.value) == (
        "html must be a place that can be written to, got 'file' (Permission denied); pass another path"
    )


def test_a_check_leaves_nothing_behind_and_what_was_there_as_it_was(tmp_path):
    Path("file").write_text("as it was")
    places.check_file("html", Path("file"))
    places.check_file("html", Path("new"))
    places.check_file("html", None)
    places.check_file("checkpoint", tmp_path / "a" / "b" / "new", makes_folder=True)
    places.check_folder("store", tmp_path / "a" / "b")
    places.check_folder("store", Path())
    places.check_folder("store", None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert Path("file").read_text() == "as it was"
