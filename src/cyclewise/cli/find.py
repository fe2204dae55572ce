"""``cyclewise find``: the range test on the user's own Learner."""

from typing import Annotated

import typer

from cyclewise.cli.advice import advice
from cyclewise.cli.options import AsJson, Html, Output, Seed, Target, Traceback
from cyclewise.cli.outcome import REFUSED


def find(
    target: Target,
    seed: Seed = 0,
    num_steps: Annotated[int, typer.Option(help="Steps (optimizer updates) of all sweeps.")] = 100,
    total_steps: Annotated[
        int | None, typer.Option(help="Steps of the run that the rate is for; matters where samples are few.")
    ] = None,
    start_lr: Annotated[float | None, typer.Option(help="Lowest rate to try; found if left out.")] = None,
    end_lr: Annotated[float | None, typer.Option(help="Highest rate to try; found if left out.")] = None,
    sweep: Annotated[str, typer.Option(help="exponential or linear.")] = "exponential",
    as_json: AsJson = False,
    html: Html = None,
    show_traceback: Traceback = False,
) -> None:
    """Find a learning rate by a range test, or say why there is none (exit status 3)."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        from cyclewise.cli.target import make_learner

        with output.quiet_stdout():
            learner = make_learner(target, seed)
            result = learner.lr_find(
                num_steps=num_steps, total_steps=total_steps, start_lr=start_lr, end_lr=end_lr, sweep=sweep, seed=seed
            )
        output.say(str(result))
        output.finish(result.to_dict(), [result])
        if result.refusal is not None:
            output.say(f"what to do: {advice(result.refusal.remedy)}")
            raise typer.Exit(REFUSED)
