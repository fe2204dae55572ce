"""``cyclewise fit``: one-cycle training of the user's own Learner."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cyclewise.cli import places
from cyclewise.cli.advice import OF_FIND, of_error
from cyclewise.cli.options import AsJson, Html, Output, Seed, Target, Traceback
from cyclewise.cli.streams import error_values
from cyclewise.errors import CyclewiseError, DivergedError, SuggestionError


def fit(
    target: Target,
    epochs: Annotated[float, typer.Option(help="Length of the cycle in epochs.")] = 5.0,
    max_lr: Annotated[float | None, typer.Option(help="Peak rate; left out, a range test finds it first.")] = None,
    pct_start: Annotated[float, typer.Option(help="Fraction of the steps spent rising, 0 to 1.")] = 0.3,
    wd: Annotated[float | None, typer.Option(help="Weight decay; left out, the optimizer's own.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Write a checkpoint here after every epoch; started again, the run goes on from the last."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    html: Html = None,
    show_traceback: Traceback = False,
) -> None:
    """Train with one cycle and show what happened."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        from cyclewise.cli.target import make_learner
        from cyclewise.training import Checkpoint

        places.check_folder("run", run)
        _check(epochs, max_lr, pct_start, wd)
        with output.quiet_stdout():
            learner = make_learner(target, seed)
            if run is not None and run.exists():
                output.say(f"resumed at step {learner.resume(run)}")
            found = None
            if max_lr is None:
                found = learner.lr_find(seed=seed, total_steps=learner.steps_in("epochs", epochs))
            if found is not None:
                output.say(str(found))
            callbacks = [] if run is None else [Checkpoint(run)]
            history, error = None, None
            try:
                history = learner.fit_one_cycle(epochs, max_lr, pct_start=pct_start, wd=wd, callbacks=callbacks)
                output.say(str(history))
            except KeyboardInterrupt:
                if run is not None and run.exists():
                    output.say(f"stopped at step {learner.history.num_steps}; the same command goes on from there")
                raise
            except (SuggestionError, DivergedError) as stopped:
                history, error = learner.history if learner.history.num_steps else None, _with_way_back(stopped)
        records = [record for record in (found, history) if record is not None]
        values: dict[str, Any] = {
            "history": None if history is None else history.to_dict(),
            "range_test": None if found is None else found.to_dict(),
        }
        if error is not None:
            values |= error_values(of_error(str(error)), type(error).__name__)
        if records or as_json:
            output.finish(values, records)
        if error is not None:
            raise error


def _with_way_back(error: CyclewiseError) -> CyclewiseError:
    """Return an error whose way out leads to another command with the way back from there."""
    if isinstance(error, SuggestionError) and any(name in str(error) for name in OF_FIND):
        return SuggestionError(f"{error}; then pass the rate that it gives as max_lr=")
    return error


def _check(epochs: float, max_lr: float | None, pct_start: float, wd: float | None) -> None:
    """Refuse what cannot work before the range test is run, which needs none of it."""
    from cyclewise import OneCycle
    from cyclewise._validation import non_negative, positive

    positive("epochs", epochs, way_out="it counts epochs, for example 5")
    OneCycle(max_lr=1.0 if max_lr is None else max_lr, total_steps=1, pct_start=pct_start)
    if wd is not None:
        non_negative("wd", wd, way_out="1e-4 is usual; left out, it is the optimizer's own")
