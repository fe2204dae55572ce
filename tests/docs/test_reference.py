"""The reference page lists every public name once, and the check of the built site finds what is wrong with it."""

import cyclewise as cw
from docs.reference import names_by_title, page
from scripts.check_site import complaints


def test_every_public_name_is_on_the_page_once():
    names = [name for group in names_by_title().values() for name in group]
    assert sorted(names) == cw.__all__
    assert all(f":: cyclewise.{name}\n" in page() + "\n" for name in cw.__all__)


def test_functions_come_first():
    assert names_by_title()["Finding a rate"][0] == "lr_find"
    assert ".. autofunction:: cyclewise.lr_find" in page()
    assert ".. autoexception:: cyclewise.PolicyError" in page()
    assert ".. autoclass:: cyclewise.OneCycle\n   :members:" in page()


def test_the_check_finds_what_is_wrong(tmp_path):
    anchors = "".join(f'<a id="cyclewise.{name}"></a>' for name in cw.__all__)
    reference, other = tmp_path / "reference.html", tmp_path / "other.html"
    reference.write_text(anchors)
    other.write_text('<a href="reference.html#cyclewise.lr_find">a</a><a href="https://example.org">b</a>')
    assert complaints(tmp_path) == []

    reference.write_text(anchors.replace('"cyclewise.lr_find"', '"gone"'))
    other.write_text(
        '<a href="reference.html#cyclewise.lr_find">a</a><a href="lost.html">b</a><script src="//cdn.example/x.js">'
    )
    (tmp_path / "style.css").write_text('@import url("https://fonts.example/a.css");')
    (tmp_path / "large.png").write_bytes(bytes(100_001))
    assert [line.removeprefix(f"{tmp_path}/") for line in complaints(tmp_path)] == [
        "other.html: fetches //cdn.example/x.js",
        "other.html: reference.html#cyclewise.lr_find has no such place",
        "other.html: lost.html does not exist",
        "style.css: fetches https://fonts.example/a.css",
        "large.png: larger than 100 KB",
        "reference.html: lr_find is missing",
    ]
