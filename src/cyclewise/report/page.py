"""The report: the sections of records on one page that asks for nothing from anywhere else."""

import base64
import hashlib
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cyclewise import _validation
from cyclewise.drawing import html
from cyclewise.drawing.chart import Section
from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.files import write_file
from cyclewise.report.origin import Origin

_TEMPLATES = "cyclewise.report"


@runtime_checkable
class Reportable(Protocol):
    """Anything that can say what its part of a report is: a range test, a history, a comparison."""

    def section(self) -> Section:
        """Return the conclusion, pictures, tables and settings of this record."""
        ...


def write_html(
    record_or_list: Reportable | Section | Iterable[Reportable | Section],
    path: str | os.PathLike[str],
    *,
    title: str = "cyclewise report",
    command: str | None = None,
) -> Path:
    """Write records as one HTML file: conclusions first, then pictures, tables and settings, then how it was made.

    The file holds everything it shows and loads nothing. It is written whole or not at all: on any failure a file that
    was there stays as it was.

    Args:
        record_or_list: one record with a ``section()``, a Section, or several of them in the order they should appear.
        path: the file to write; its folder must exist.
        title: the heading of the page.
        command: the command that repeats this; None takes the command line where ``cyclewise`` was run from one.

    Returns:
        The path of the file.

    Raises:
        ArgumentError: nothing to report, or `path` cannot be a file.
        ArgumentTypeError: something in `record_or_list` has no section.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_html(Section("Rates", "max_lr is 0.42."), Path(folder) / "report.html")
    ...     written.name, "max_lr is 0.42." in written.read_text(encoding="utf-8")
    ('report.html', True)
    """
    _validation.instance("title", title, str, "text", way_out='pass a str such as "digits, three seeds"')
    _validation.instance("command", command, (str, type(None)), "text or None", way_out="pass the command as one str")
    target = _checked_path(path)
    page = _render(_sections(record_or_list), title=title, origin=Origin.here(command))
    write_file(target, page.encode())
    return target


def _render(sections: list[Section], *, title: str, origin: Origin) -> str:
    environment = html.environment(_TEMPLATES)
    script = html.script()
    # Only this very script may run on the page; whatever slipped in by another way could not.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    anchors = [f"section-{index}" for index in range(1, len(sections) + 1)]
    return environment.get_template("report.html.j2").render(
        title=title,
        style=html.style(),
        page_style=(resources.files(_TEMPLATES) / "templates" / "page.css").read_text(encoding="utf-8").strip(),
        script=script,
        script_hash=digest,
        conclusions=list(zip(anchors, sections, strict=True)),
        sections=[
            html.section_html(section, level=2, anchor=anchor)
            for anchor, section in zip(anchors, sections, strict=True)
        ],
        origin=origin,
    )


def _sections(record_or_list: Any) -> list[Section]:
    if _is_one(record_or_list):
        return [_section("record_or_list", record_or_list)]
    if isinstance(record_or_list, (str, bytes, dict)) or not isinstance(record_or_list, Iterable):
        raise _no_record("record_or_list", record_or_list)
    sections = [_section(f"record_or_list[{index}]", record) for index, record in enumerate(record_or_list)]
    if not sections:
        raise ArgumentError(
            f"record_or_list must hold at least one record, got {record_or_list!r}; "
            "pass a result, for example that of lr_find"
        )
    return sections


def _is_one(value: Any) -> bool:
    return not isinstance(value, type) and isinstance(value, (Section, Reportable))


def _section(name: str, record: Any) -> Section:
    if isinstance(record, Section):
        return record
    if not _is_one(record):
        raise _no_record(name, record)
    section = record.section()
    if not isinstance(section, Section):
        raise ArgumentTypeError(
            f"{name}.section() must return a Section, got {_validation.describe(section)}; "
            "return cyclewise.drawing.Section(title, conclusion)"
        )
    return section


def _no_record(name: str, value: Any) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"{name} must be a record with a section() method, got {_validation.describe(value)}; "
        "pass what lr_find, a history or compare returned, or a list of these"
    )


def _checked_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentTypeError(f'path must be a path, got {_validation.describe(path)}; pass "report.html"')
    target = Path(path)
    if target.is_dir() or not target.name:
        raise ArgumentError(
            f"path must be a file, got the folder {os.fspath(path)!r}; add a name: {str(target / 'report.html')!r}"
        )
    if target.exists() and not target.is_file():
        raise ArgumentError(f"path must be a regular file, got {os.fspath(path)!r}; pass the name of a file to write")
    if not target.parent.is_dir():
        raise ArgumentError(
            f"path must lie in an existing folder, got {os.fspath(path)!r}; "
            f"make the folder {str(target.parent)!r} first"
        )
    return target
