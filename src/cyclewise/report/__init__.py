"""Records as one self-contained HTML file, to keep, send and print."""

from cyclewise.report.page import Reportable, check_path, write_html

__all__ = ["Reportable", "check_path", "write_html"]
