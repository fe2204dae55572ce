"""``cyclewise compare``: policies against each other on the user's own Learner."""

from pathlib import Path
from typing import Annotated

import typer

from cyclewise.cli import places
from cyclewise.cli.advice import advice
from cyclewise.cli.options import AsJson, Html, Output, Target, Traceback
from cyclewise.cli.outcome import FAILED, REFUSED


def compare(
    target: Target,
    policies: Annotated[
        str, typer.Option(metavar="NAMES", help="By commas; one-cycle, constant, cosine, step-decay, sgdr, …")
    ] = "one-cycle,constant",
    baseline: Annotated[str, typer.Option(help="The one that the others are held against.")] = "constant",
    epochs: Annotated[float, typer.Option(help="Length of every run.")] = 5.0,
    metric: Annotated[str, typer.Option(help="A name in evaluate(), such as accuracy.")] = "loss",
    lower_is_better: Annotated[
        bool | None,
        typer.Option(
            "--lower-is-better/--higher-is-better", help="Direction of the metric; left out, what its name tells."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each policy; a verdict needs 6 for two policies, 7 for three or four.")
    ] = 8,
    rates: Annotated[
        str | None,
        typer.Option(metavar="RATES", help="Peak rates to try for each policy, by commas; left out, a range test."),
    ] = None,
    goal: Annotated[float | None, typer.Option("--target", help="Count steps and seconds to this metric.")] = None,
    engine: Annotated[str, typer.Option(help="processes, local, ray, or the address of a Ray cluster.")] = "processes",
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time; left out, one per core.")] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep finished runs here; started again, the rest is run."),
    ] = None,
    as_json: AsJson = False,
    html: Html = None,
    show_traceback: Traceback = False,
) -> None:
    """Train with several policies on the same seeds and say which is better, by how much, and how sure that is."""
    with Output(as_json=as_json, html=html).command(show_traceback=show_traceback) as output:
        import cyclewise as cw
        from cyclewise.cli.target import load, made
        from cyclewise.comparison.named import named_policies
        from cyclewise.comparison.rows import Missing

        places.check_folder("store", store)
        with output.quiet_stdout():
            # One is made here, so that what is wrong with it is said at once, and its epochs can be counted.
            function = load(target)
            total_steps = made(target, function, 0).steps_in("epochs", epochs)
            names = dict.fromkeys([*(name.strip() for name in policies.split(",")), baseline])
            record = cw.compare(
                named_policies(list(names), total_steps), function,
                seeds=range(seeds), metric=metric, baseline=baseline, engine=engine, workers=workers,
                tune="lr_find" if rates is None else _rates(rates), target=goal,
                lower_is_better=lower_is_better, store=store,
            )  # fmt: skip
        section = record.section()
        output.say(advice(section.conclusion))
        output.show(section.tables[0])
        output.finish(record.to_dict(), [record])
        if all(row.unavailable.get("mean") is Missing.REFUSED for row in record.rows):
            raise typer.Exit(REFUSED)
        if all(row.mean is None for row in record.rows):
            raise typer.Exit(FAILED)


def _rates(text: str) -> list[float]:
    from cyclewise.errors import ArgumentError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(f"rates must be numbers by commas, got {text!r}; for example 0.03,0.1,0.3") from None
