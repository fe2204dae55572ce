import os
import re
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from cyclewise.drawing import Chart, Line, Section, Table
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.report import Reportable, write_html
from cyclewise.report.origin import Origin, command_line

FIRST = Section("First", "The rate is 0.42.", [Chart("Loss", "step", "loss", [Line("a", range(500), range(500))])])
SECOND = Section("Second", "It works.", tables=[Table(["a"], [["1"]])], settings={"seed": "0"})


class Record:
    def __init__(self, section):
        self._section = section

    def section(self):
        return self._section


def page(*records, path, **settings):
    return write_html(list(records), path / "report.html", **settings).read_text(encoding="utf-8")


def raises(kind, message):
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("records", [FIRST, Record(FIRST), [FIRST], (Record(FIRST),), iter([FIRST])])
def test_one_record_or_several(tmp_path, records):
    target = write_html(records, tmp_path / "report.html")
    assert target == tmp_path / "report.html"
    assert "The rate is 0.42." in target.read_text(encoding="utf-8")
    assert isinstance(Record(FIRST), Reportable)


def test_a_path_may_be_text(tmp_path):
    assert write_html(FIRST, str(tmp_path / "a.html")) == tmp_path / "a.html"


def test_conclusions_come_first_and_origin_last(tmp_path):
    text = page(FIRST, Record(SECOND), path=tmp_path, title="Digits", command="cyclewise demo")
    order = ["<h1>Digits", "The rate is 0.42.", "It works.", "First</h2>", "<svg", "Second</h2>", "How this was made"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.index("cyclewise demo</code>") > places[-1]
    for name in ("cyclewise", "Python", "torch", "numpy", "platform", "date"):
        assert f"<dt>{name}</dt>" in text


def test_the_page_is_self_contained(tmp_path):
    text = page(FIRST, SECOND, path=tmp_path)
    assert set(re.findall(r'(?:href|src)="([^"]*)"', text)) == {"data:,", "#section-1", "#section-2"}
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.startswith("<!DOCTYPE html>")
    for part in ('<html lang="en">', '<meta charset="utf-8">', 'name="viewport"', "<main>", "prefers-color-scheme"):
        assert part in text
    assert len(text.encode()) < 60_000


def test_headings_skip_no_level(tmp_path):
    levels = [int(level) for level in re.findall(r"<h(\d)", page(FIRST, SECOND, path=tmp_path))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_ordinary_content_stays_small(tmp_path):
    chart = Chart(
        "t", "x", "y", [Line(name, range(20_000), [(i * 7919) % 997 for i in range(20_000)]) for name in "ab"]
    )
    assert len(page(Section("t", "c", [chart] * 4), path=tmp_path).encode()) < 200_000


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title>"])
def test_names_are_escaped_everywhere(tmp_path, name):
    chart = Chart(name, name, name, [Line(name, [0, 1], [0, 1])] * 2, caption=name)
    named = Section(name, name, [chart], [Table([name], [[name]], name)], {name: name})
    text = page(named, FIRST, path=tmp_path, title=name, command=name)
    plain = page(
        Section(
            "n",
            "n",
            [Chart("n", "n", "n", [Line("n", [0, 1], [0, 1])] * 2, caption="n")],
            [Table(["n"], [["n"]], "n")],
            {"n": "n"},
        ),
        FIRST,
        path=tmp_path,
        title="n",
        command="n",
    )
    # The name adds no element, of whatever kind.
    assert text.count("<") == plain.count("<")


def test_the_command_is_that_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/cyclewise", "find", "my file.py:make_learner"])
    assert "<code>cyclewise find &#39;my file.py:make_learner&#39;</code>" in page(FIRST, path=tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    assert "<code>" not in page(FIRST, path=tmp_path)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["cyclewise", "demo"], "cyclewise demo"),
        (["/x/cyclewise/__main__.py", "demo"], "cyclewise demo"),
        (["/usr/bin/pytest"], None),
        ([""], None),
        ([], None),
    ],
)
def test_only_our_own_command_line_is_repeated(argv, command):
    assert command_line(argv) == command


def test_a_package_that_is_not_installed_is_named_so(monkeypatch):
    monkeypatch.setattr("cyclewise.report.origin.PACKAGES", ("cyclewise", "no-such-package"))
    assert Origin.here().versions["no-such-package"] == "not installed"


def test_an_empty_list_is_an_error(tmp_path):
    with raises(
        ArgumentError,
        "record_or_list must hold at least one record, got []; pass a result, for example that of lr_find",
    ):
        write_html([], tmp_path / "a.html")


@pytest.mark.parametrize(
    ("record", "name", "got"),
    [
        (3, "record_or_list", "int 3"),
        ("text", "record_or_list", "str 'text'"),
        ({"a": FIRST}, "record_or_list", "a dict"),
        (Record, "record_or_list", "a type"),
        ([FIRST, None], "record_or_list[1]", "NoneType None"),
    ],
)
def test_a_record_of_another_kind_is_an_error(tmp_path, record, name, got):
    with raises(
        ArgumentTypeError,
        f"{name} must be a record with a section() method, got {got}; "
        "pass what lr_find, a history or compare returned, or a list of these",
    ):
        write_html(record, tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_a_section_method_that_returns_something_else_is_an_error(tmp_path):
    with raises(
        ArgumentTypeError,
        "record_or_list.section() must return a Section, got NoneType None; "
        "return cyclewise.drawing.Section(title, conclusion)",
    ):
        write_html(Record(None), tmp_path / "a.html")


def test_a_missing_folder_is_an_error(tmp_path):
    path = str(tmp_path / "missing" / "a.html")
    with raises(
        ArgumentError,
        f"path must lie in an existing folder, got {path!r}; make the folder {str(tmp_path / 'missing')!r} first",
    ):
        write_html(FIRST, path)


def test_a_folder_is_no_file(tmp_path):
    with raises(
        ArgumentError,
        f"path must be a file, got the folder {str(tmp_path)!r}; add a name: {str(tmp_path / 'report.html')!r}",
    ):
        write_html(FIRST, tmp_path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with raises(
        ArgumentError,
        f"path must be a regular file, got {str(tmp_path / 'pipe')!r}; pass the name of a file to write",
    ):
        write_html(FIRST, tmp_path / "pipe")


def test_a_path_of_another_kind_is_an_error():
    with raises(ArgumentTypeError, 'path must be a path, got int 3; pass "report.html"'):
        write_html(FIRST, 3)


def test_a_title_of_another_kind_is_an_error(tmp_path):
    with raises(ArgumentTypeError, 'title must be text, got int 3; pass a str such as "digits, three seeds"'):
        write_html(FIRST, tmp_path / "a.html", title=3)


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(step, fail)
    with pytest.raises(type(error)):
        write_html(FIRST, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_fails_leaves_the_old_file(tmp_path):
    class Failing:
        def section(self):
            raise RuntimeError("mine")

    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(RuntimeError, match=r"^mine$"):
        write_html([FIRST, Failing()], path)
    assert path.read_text() == "old"


def test_permissions_are_the_users_and_are_kept(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    path = write_html(FIRST, tmp_path / "report.html")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    write_html(FIRST, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_text("old")
    link.symlink_to(real)
    write_html(FIRST, link)
    assert link.is_symlink()
    assert "The rate is 0.42." in real.read_text(encoding="utf-8")


def test_a_relative_path_is_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_html(FIRST, "report.html") == Path("report.html")
    assert (tmp_path / "report.html").is_file()
