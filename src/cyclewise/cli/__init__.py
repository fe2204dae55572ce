"""The command line: each command parses, builds, calls and prints; torch is imported when one runs.

Exit status: 0 done, 1 diverged or failed, 2 usage, 3 refused (no rate could be given). A reader that goes before
the end (``| head -1``) changes none of it: it is no failure of the work.
"""

import typer

from cyclewise.cli.compare import compare
from cyclewise.cli.demo import demo
from cyclewise.cli.diagnose import diagnose
from cyclewise.cli.experiment import experiment
from cyclewise.cli.find import find
from cyclewise.cli.fit import fit
from cyclewise.cli.options import print_version
from cyclewise.cli.policy import policy_app
from cyclewise.cli.search import search

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(compare)
app.command()(demo)
app.command()(diagnose)
app.command()(experiment)
app.command()(find)
app.command()(fit)
app.command()(search)
app.add_typer(policy_app, name="policy")


@app.callback()
def _cyclewise(
    version: bool = typer.Option(False, "--version", callback=print_version, is_eager=True, help="Show the version."),
) -> None:
    """Know your learning rate: find it, drive it through training, show what happened."""
    del version


def main() -> None:
    """Run the command line and exit with its status."""
    app()
