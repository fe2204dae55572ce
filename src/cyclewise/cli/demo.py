"""``cyclewise demo``: the main job on real digits."""

from pathlib import Path
from typing import Annotated

import typer

from cyclewise.cli.options import AsJson, Output, Traceback


def demo(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each policy.")] = 3,
    as_json: AsJson = False,
    html: Annotated[Path, typer.Option(metavar="PATH", help="Where the report goes.")] = Path("report.html"),
    show_traceback: Traceback = False,
) -> None:
    """Find a rate on scikit-learn's digits, train with one-cycle, hold it against the best constant rate."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        from cyclewise.experiments import digits_contest, digits_learner
        from cyclewise.experiments.digits import CONSTANT_RATES, NUM_EPOCHS
        from cyclewise.progress import progress_bar

        learner = digits_learner(0)
        learner.progress = "auto"
        found = learner.lr_find(total_steps=learner.steps_in("epochs", NUM_EPOCHS))
        output.say(f"range test: {found}")
        num_runs = seeds * (1 + len(CONSTANT_RATES))
        output.say(
            f"training {num_runs} runs: one-cycle and {len(CONSTANT_RATES)} constant rates, {seeds} seed(s) each"
        )
        with progress_bar("training", num_runs) as bar:
            contest = digits_contest(found, seeds=range(seeds), on_run=bar.advance)
        output.show(contest.table())
        output.say(str(contest))
        output.finish({"range_test": found.to_dict(), "contest": contest.to_dict()}, [found, contest])
