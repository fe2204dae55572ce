"""Records as one self-contained HTML file, to keep, send and print."""

from cyclewise.report.page import Reportable, write_html

__all__ = ["Reportable", "write_html"]
