"""``cyclewise policy NAME``: draw a policy in the terminal and as a picture; one subcommand per policy."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cyclewise.cli import places
from cyclewise.cli.commands import Command
from cyclewise.cli.options import AsJson, Output
from cyclewise.policies import Policy, registered_policies

policy_app = typer.Typer(no_args_is_help=True, help="Draw a policy in the terminal and as a picture.")

_PICTURES = (".png", ".svg", ".pdf")
# Where the output goes to a file or a pipe.
_COLUMNS = 72
Save = Annotated[Path | None, typer.Option(metavar="PATH", help=f"Write a picture: {', '.join(_PICTURES)}.")]


def _command(policy_class: type[Policy]) -> Callable[..., None]:
    fields = _option_fields(policy_class)

    def command(save: Path | None, as_json: bool, **arguments: Any) -> None:
        with Output(as_json=as_json, html=None).command(show_traceback=None) as output:
            policy = policy_class(**{name: _value(value) for name, value in arguments.items()})
            places.check_file("save", save, endings=_PICTURES)
            _show(policy, output)
            if save is not None:
                policy.plot().savefig(save)
                output.note(f"picture: {save}")
            output.finish(policy.to_dict(), [])

    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=... if field.default is dataclasses.MISSING else field.default,
            annotation=Annotated[kind, typer.Option(f"--{field.name.replace('_', '-')}")],
        )
        for field, kind in fields
    ]
    parameters += [
        inspect.Parameter("save", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Save),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # A terminal shows reStructuredText's marks as they are.
    command.__doc__ = (policy_class.__doc__ or "").partition("\n\n")[0].replace("`", "")
    return command


def _show(policy: Policy, output: Output) -> None:
    from cyclewise.drawing.terminal import text

    for chart in policy.charts():
        output.say(text(chart, width=output.columns or _COLUMNS))
    output.say(repr(policy))


def _option_fields(policy_class: type[Policy]) -> list[tuple["dataclasses.Field[Any]", Any]]:
    """Return the fields with the type of their option; empty where a field is no number, text or list of numbers."""
    fields: dict[str, dataclasses.Field[Any]] = getattr(policy_class, "__dataclass_fields__", {})
    hints = typing.get_type_hints(policy_class)
    pairs = [(field, _option_type(hints[name])) for name, field in fields.items() if field.init]
    return [] if any(kind is None for _, kind in pairs) else pairs


def _option_type(hint: Any) -> Any:
    if hint is Any:
        return float  # Constant's rate, which is a number and a schedule
    if hint in (int, float, str):
        return hint
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType) and set(arguments) <= {int, float, type(None)}:
        return hint if float not in arguments or int not in arguments else float | None
    if typing.get_origin(hint) is tuple:
        return {int: list[int], float: list[float]}.get(arguments[0])
    return None


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


for _policy_class in registered_policies():
    if _policy_class.__module__.startswith("cyclewise.") and _option_fields(_policy_class):
        policy_app.command(_kebab(_policy_class.__name__), cls=Command)(_command(_policy_class))
