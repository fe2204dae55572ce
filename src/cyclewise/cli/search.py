"""``cyclewise search``: a better starting point for the user's own Learner."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cyclewise.cli import places
from cyclewise.cli.advice import of_error
from cyclewise.cli.options import AsJson, Html, Output, Seed, Target, Traceback
from cyclewise.cli.streams import error_values


def search(
    target: Target,
    seed: Seed = 0,
    space: Annotated[
        Literal["gains", "scheme", "both"],
        typer.Option(help="One factor per weight matrix, the initial distribution per kind of layer, or both."),
    ] = "gains",
    algorithm: Annotated[str, typer.Option(help="Any Nevergrad optimizer by name.")] = "PSO",
    budget: Annotated[int, typer.Option(min=2, help="Short runs to make.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 50,
    max_lr: Annotated[float | None, typer.Option(help="Peak rate of the runs; left out, a range test.")] = None,
    redraw: Annotated[bool, typer.Option(help="Hold it against as many random re-draws.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    engine: Annotated[str, typer.Option(help="local, processes, ray, or the address of a Ray cluster.")] = "local",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep what was found here; started again, it goes on.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the found start here, for StartSearch.load.")
    ] = None,
    as_json: AsJson = False,
    html: Html = None,
    show_traceback: Traceback = False,
) -> None:
    """Search a better starting point by short training runs, and say what it is better than."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        import cyclewise as cw
        from cyclewise._validation import positive
        from cyclewise.cli.target import load, made
        from cyclewise.errors import CheckpointError

        places.check_file("checkpoint", checkpoint, makes_folder=True)
        places.check_file("save", save)
        if max_lr is not None:
            positive("max_lr", max_lr, way_out="leave it out to have it found")
        with output.quiet_stdout():
            function = load(target)
            learner = made(target, function, seed)
            spaces: dict[str, cw.Space] = {}
            if space != "scheme":
                spaces["gains"] = cw.LayerGains(learner.model)
            if space != "gains":
                spaces["scheme"] = cw.InitScheme(learner.model, seed=seed)
            found = learner.search_start(
                cw.Product(list(spaces.values())) if len(spaces) > 1 else spaces[space],
                algorithm=algorithm, budget=budget, seed=seed, num_steps=steps, max_lr=max_lr, workers=workers,
                engine=engine, checkpoint=checkpoint,
                redraw=(lambda other: made(target, function, other).model) if redraw else None,
            )  # fmt: skip
        section = found.section()
        output.say(section.conclusion)
        for table in section.tables:
            output.show(table)
        values, error = found.to_dict(), None
        if save is not None:
            try:
                output.say(f"start: {found.save(save)}")
            except CheckpointError as unsaved:  # a disk that filled up takes the start, not what else was asked for
                error = unsaved
                values |= error_values(of_error(str(error)), type(error).__name__)
        output.finish(values, [found])
        if error is not None:
            raise error
