import re
from html.parser import HTMLParser

import pytest

from cyclewise.drawing import Band, Chart, Line, Mark, Section, Table
from cyclewise.drawing.html import fragment, legend, numeric_columns, script, section_html, style

NASTY = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</style><b>"]


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def section_named(name):
    chart = Chart(
        name, name, name, [Line(name, [0, 1], [0, 1]), Line(name, [0], [1])], [Band(name, 0, 1)], [Mark(name, 1)],
        caption=name,
    )  # fmt: skip
    return Section(name, name, [chart], [Table([name, name], [[name, name]], caption=name)], {name: name})


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_as_it_is_wherever_it_stands(name):
    plain, nasty = Elements(fragment(section_named("name"))), Elements(fragment(section_named(name)))
    assert nasty.tags == plain.tags
    assert nasty.attributes == plain.attributes
    assert "onerror" not in nasty.attributes
    shown = [text for text in nasty.texts if text.strip() == name]
    assert len(shown) >= 12


def test_characters_that_a_page_cannot_hold_are_replaced():
    text = fragment(section_named("a\x00b\ud800c"))
    assert text.encode()
    assert "\x00" not in text
    assert "a\ufffdb\ufffdc" in text


def test_a_fragment_asks_for_nothing_and_styles_nothing_else():
    text = fragment(section_named("name"))
    assert not re.search(r"(src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text)
    for selectors in re.findall(r"(?:^|})\s*([^{}@]+){", style()):
        assert all(".cw" in selector or selector.startswith("div.cw") for selector in selectors.split(","))


def test_a_fragment_has_no_ids_that_could_clash():
    assert not re.search(r"\sid=", fragment(section_named("name")))


def test_headings_are_in_order():
    found = re.findall(r"<h(\d)", section_html(section_named("name"), level=2))
    assert found == ["2", "3", "3"]


def test_an_empty_section_is_its_title_and_conclusion():
    text = section_html(Section("Title", "Conclusion."), level=2)
    assert Elements(text).tags == ["section", "h2", "p"]


def test_a_legend_names_more_than_one_line():
    one, two = Line("a", [0], [1]), Line("b", [0], [1], dashed=True)
    assert legend(Chart("t", "x", "y", [one])) == []
    assert [entry.name for entry in legend(Chart("t", "x", "y", [one, two]))] == ["a", "b"]


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["0.1", "1e-4", "-3", "+0.2", "12,000", "97.8 %", "0.98 ± 0.01", "–", ""], True),
        (["0.25 – 0.60"], True),
        (["0.1", "none yet"], False),
        (["–", ""], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_found(cells, numeric):
    assert numeric_columns(Table(["c"], [[cell] for cell in cells])) == [numeric]


def test_a_row_may_be_shorter_or_longer_than_the_header():
    assert "<td" in section_html(Section("t", "c", tables=[Table(["a", "b"], [["1"], ["1", "2", "3"]])]), level=2)


def test_style_and_script_cannot_end_their_elements():
    assert "</" not in style()
    assert "</" not in script()
    assert "innerHTML" not in script()
