"""``cyclewise diagnose``: what stands in the way, on the user's own Learner."""

import math
from typing import Annotated

import typer

from cyclewise.cli.advice import advice
from cyclewise.cli.options import AsJson, Html, Output, Seed, Target, Traceback
from cyclewise.cli.outcome import FAILED


def diagnose(
    target: Target,
    seed: Seed = 0,
    batches: Annotated[int, typer.Option(min=1, help="Training batches to measure on.")] = 8,
    budget: Annotated[int, typer.Option(help="Gradient evaluations over these batches to spend.")] = 200,
    as_json: AsJson = False,
    html: Html = None,
    show_traceback: Traceback = False,
) -> None:
    """Measure what stands in the way of training, and say what to do about it."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        from cyclewise.cli.target import make_learner

        with output.quiet_stdout():
            learner = make_learner(target, seed)
            diagnosis = learner.diagnose(num_batches=batches, seed=seed, budget=budget)
        output.say(str(diagnosis))
        for finding in diagnosis.findings:
            output.say(f"{finding}\n  evidence: {finding.evidence}\n  what to do: {advice(finding.remedy)}")
        output.finish(diagnosis.to_dict(), [diagnosis])
        if not math.isfinite(diagnosis.loss):
            raise typer.Exit(FAILED)
