"""The command line: each command parses, builds, calls and prints; torch is imported when one runs.

Exit status: 0 done, 1 diverged or failed, 2 usage, 3 refused (no rate could be given). A reader that goes before
the end (``| head -1``) changes none of it: it is no failure of the work.
"""

import io
import sys

import typer

from cyclewise.cli.commands import Command, Group
from cyclewise.cli.compare import compare
from cyclewise.cli.demo import demo
from cyclewise.cli.diagnose import diagnose
from cyclewise.cli.experiment import experiment
from cyclewise.cli.find import find
from cyclewise.cli.fit import fit
from cyclewise.cli.options import print_version
from cyclewise.cli.policy import policy_app
from cyclewise.cli.report import report
from cyclewise.cli.search import search
from cyclewise.cli.streams import patient

app = typer.Typer(cls=Group, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command(cls=Command)(compare)
app.command(cls=Command)(demo)
app.command(cls=Command)(diagnose)
app.command(cls=Command)(experiment)
app.command(cls=Command)(find)
app.command(cls=Command)(fit)
app.command(cls=Command)(report)
app.command(cls=Command)(search)
app.add_typer(policy_app, name="policy")


@app.callback()
def _cyclewise(
    version: bool = typer.Option(False, "--version", callback=print_version, is_eager=True, help="Show the version."),
) -> None:
    """Know your learning rate: find it, drive it through training, show what happened."""
    del version


def main() -> None:
    """Run the command line and exit with its status."""
    # For what the user's own code prints, and for typer's help, which has signs that not every terminal knows.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = patient(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = patient(sys.stderr)
    app()
