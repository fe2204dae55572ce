"""Check the built documentation site: every public name is there, nothing is fetched from elsewhere, links hold."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cyclewise

# What a browser fetches without being asked: these attributes, and these in style sheets.
FETCHING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
IN_STYLES = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')]*)")
WIDEST_PICTURE = 100_000  # bytes


class Page(HTMLParser):
    """The targets of one page: what it fetches, what it links to, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in FETCHING and FETCHING[tag] in values:
            self.fetched.append(values[FETCHING[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def complaints(site: Path) -> list[str]:
    """Return what is wrong with a site, a line each."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        wrong += [f"{path}: fetches {target}" for target in page.fetched if urlsplit(target).netloc]
        for target in [*page.links, *page.fetched]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not file.exists():
                wrong.append(f"{path}: {target} does not exist")
            elif parts.fragment and file.suffix == ".html":
                other = next((other for other_path, other in pages.items() if other_path.resolve() == file), None)
                if other is not None and unquote(parts.fragment) not in other.anchors:
                    wrong.append(f"{path}: {target} has no such place")
    for style in sorted(site.rglob("*.css")):
        wrong += [f"{style}: fetches {target}" for target in IN_STYLES.findall(style.read_text())]
    for picture in sorted(site.rglob("*.png")):
        if picture.stat().st_size > WIDEST_PICTURE:
            wrong.append(f"{picture}: larger than {WIDEST_PICTURE // 1000} KB")
    anchors = pages[site / "reference.html"].anchors
    wrong += [f"reference.html: {name} is missing" for name in cyclewise.__all__ if f"cyclewise.{name}" not in anchors]
    return wrong


if __name__ == "__main__":
    found = complaints(Path(sys.argv[1]))
    print("\n".join(found) or "the site is whole: every public name, no outside request, no dead link")
    sys.exit(bool(found))
