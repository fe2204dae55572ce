"""``cyclewise experiment``: the article's experiments, and which of its claims were seen."""

from pathlib import Path
from typing import Annotated

import typer

from cyclewise.cli import places
from cyclewise.cli.options import AsJson, Output, Traceback


def experiment(
    number: Annotated[str, typer.Argument(metavar="1|2|3|all", help="Which of the article's experiments.")],
    small: Annotated[bool, typer.Option("--small", help="On scikit-learn's digits: minutes on two cores.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Four IDX files named as those of Fashion-MNIST.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Training images to use, and test images at most; left out, all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, in processes of one thread; left out, one per core.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep finished runs here; started again, the rest is run."),
    ] = None,
    as_json: AsJson = False,
    out: Annotated[Path, typer.Option(metavar="PATH", help="Where the report goes.")] = Path("report.html"),
    show_traceback: Traceback = False,
) -> None:
    """Run the article's one-cycle experiments as printed, and say of each of its claims whether it was seen."""
    with Output(as_json=as_json, html=out, option="out").command(show_traceback=show_traceback) as output:
        from cyclewise.errors import ArgumentError
        from cyclewise.experiments.article import num_runs, run_experiments
        from cyclewise.progress import progress_bar

        places.check_folder("store", store)
        if number not in ("1", "2", "3", "all"):
            raise ArgumentError(f"the experiment must be 1, 2, 3 or all, got {number!r}; for example all --small")
        numbers = [1, 2, 3] if number == "all" else [int(number)]
        with progress_bar("training", num_runs(numbers, seeds)) as bar:
            experiments = run_experiments(
                numbers, small=small, folder=data, num_images=images, seeds=range(seeds), store=store,
                workers=workers, on_run=bar.advance,
            )  # fmt: skip
        for record in experiments:
            output.say(str(record))
            for claim in record.claims:
                output.say(f"  {claim.outcome}: {claim.statement} ({claim.subject}): {claim.numbers}")
        output.finish({"experiments": [record.to_dict() for record in experiments]}, experiments)
