"""Draw the pictures of understanding-learning-rates.md and write their captions into it: `make docs`.

Every picture is a module in `pictures/` with two functions: `charts()` describes it, `caption()` says what it shows,
with the numbers of the run that was drawn.
"""

import re
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from matplotlib.figure import Figure

from cyclewise.drawing import Chart
from cyclewise.drawing.figure import draw
from docs.filling import fill

HERE = Path(__file__).parent
PAGE = HERE / "understanding-learning-rates.md"
PICTURES = HERE / "pictures" / "understanding"
TOPICS = (
    "descent",
    "sweep",
    "saddle",
    "cycles",
    "restarts",
    "one_cycle",
    "conditioning",
    "cliff",
    "powers",
    "swarm",
)


def charts_of(topic: str) -> Sequence[Chart]:
    """Return the charts of a picture."""
    return import_module(f"docs.pictures.{topic}").charts()


def caption_of(topic: str) -> str:
    """Return what a picture shows."""
    return import_module(f"docs.pictures.{topic}").caption()


def figure_of(topic: str) -> Figure:
    """Draw a picture, its charts a little flatter than in a report."""
    charts = charts_of(topic)
    figure = draw(charts)
    figure.set_size_inches(7.0, 2.9 * len(charts))
    return figure


def written_captions(page: str) -> dict[str, str]:
    """Return the captions that a page's text holds, by topic."""
    return {
        topic: " ".join(text.split()) for topic, text in re.findall(r"<!-- (\w+) -->(.*?)<!-- /\1 -->", page, re.DOTALL)
    }


def with_caption(page: str, topic: str, caption: str) -> str:
    """Return a page's text with a new caption."""
    return fill(page, {topic: textwrap.fill(caption, 120)})


def main() -> None:
    """Write the pictures, and the page with their captions."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for topic in TOPICS:
        figure_of(topic).savefig(PICTURES / f"{topic}.png", dpi=100, metadata={"Software": None})
        PAGE.write_text(with_caption(PAGE.read_text(), topic, caption_of(topic)))


if __name__ == "__main__":
    main()
