"""What typer's own classes leave out: errors of the parser as JSON, and the options of the command that runs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cyclewise.cli.streams import print_error_document

# The base of all that the parser raises has no public name.
_USAGE_ERROR: Any = typer.BadParameter.__base__
_GIVEN = "cyclewise.arguments"


@dataclass(frozen=True)
class Switch:
    """An option as it is typed.

    Attributes:
        name: with its dashes.
        off: what turns a flag off; empty where nothing does.
    """

    name: str
    off: str = ""


_OPTIONS: ContextVar[dict[str, Switch]] = ContextVar("options")


def options() -> dict[str, Switch]:
    """Return the options of the command that runs, by the name of its function's parameter; none outside of one."""
    return _OPTIONS.get({})


class Command(TyperCommand):
    """A command whose options can be looked up while it runs."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        switches = {
            str(parameter.name): Switch(parameter.opts[0], next(iter(parameter.secondary_opts), ""))
            for parameter in self.params
            if parameter.opts[0].startswith("--")
        }
        token = _OPTIONS.set(switches)
        try:
            return super().invoke(ctx)
        finally:
            _OPTIONS.reset(token)


class Group(TyperGroup):
    """Commands, of which an error of the parser is a JSON document too where one was asked for."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse what stands before the command's name."""
        given = tuple(args)
        with _document(given):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[_GIVEN] = given
        return context

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        with _document(ctx.meta[_GIVEN]):
            return super().invoke(ctx)


@contextmanager
def _document(given: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except _USAGE_ERROR as error:
        if "--json" in given:
            print_error_document(error.format_message(), type(error).__name__)
            sys.stdout.flush()
        raise
