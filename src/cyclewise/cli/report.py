"""``cyclewise report``: the page of a run from its checkpoints, also of one that was cut off."""

from pathlib import Path
from typing import Annotated

import typer

from cyclewise.cli.options import AsJson, Output, Traceback


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run, that of fit --run.")],
    html: Annotated[Path, typer.Option(metavar="PATH", help="Where the report goes.")] = Path("report.html"),
    as_json: AsJson = False,
    show_traceback: Traceback = False,
) -> None:
    """Write a report on a run from its newest checkpoint, without its model, its data or its code."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        from cyclewise.errors import ArgumentError
        from cyclewise.training.recorded import recorded

        if not run.is_dir():
            raise ArgumentError(
                f"RUN_DIR must be a folder that exists, got {str(run)!r}; pass that of `cyclewise fit --run`"
            )
        range_tests, history = recorded(run)
        for record in (*range_tests, history):
            output.say(str(record))
        values = {"range_tests": [test.to_dict() for test in range_tests], "history": history.to_dict()}
        output.finish(values, [*range_tests, history])
