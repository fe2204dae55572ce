"""What an error or a remedy advises, in the words of the command line: options in place of Python's arguments."""

import re

from cyclewise.cli.commands import Switch, options

# What a command calls otherwise than the function behind it.
_CALLED = {"tune": "rates", "target": "goal", "num_steps": "steps"}
# Of a range test that another command makes on the way, and has no options for.
OF_FIND = {name: Switch(f"cyclewise find --{name.replace('_', '-')}") for name in ("num_steps", "start_lr", "end_lr")}
_ARGUMENT = re.compile(r"\b([a-z]\w*)=(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^\s,;()\[\]`]*)")
# A name of one word is an English word too.
_NAME = re.compile(r"(?<![\w.-])([a-z]+_\w+)\b(?!\()")
# An option is left out, where an argument is None.
_NONE = re.compile(r"\bor None\b")
# What a message is about is a name, even where it is an English word too.
_SUBJECT = re.compile(r"\A[a-z]\w*(?= must )")


def of_error(message: str) -> str:
    """Return the message of an error for the command line: what it asks for, and the way out after the first semicolon.

    The value that it got stays as it was typed.
    """
    problem, semicolon, way_out = message.partition("; ")
    asked, got, value = problem.partition(", got ")
    if got:
        asked = advice(_SUBJECT.sub(_named, asked))
    return asked + got + value + semicolon + advice(way_out)


def advice(text: str) -> str:
    """Return a text with the arguments that are options of the command that runs written as these.

    Those of a range test are options of `cyclewise find` where they are none of this command.
    """
    return _NAME.sub(_named, _ARGUMENT.sub(_written, _NONE.sub("or leave it out", text)))


def _written(match: re.Match[str]) -> str:
    return _typed(match[1], match[2]) or match[0]


def _named(match: re.Match[str]) -> str:
    return _typed(match[0]) or match[0]


def _typed(name: str, value: str = "") -> str:
    """Return what is typed for an argument; empty where it is no option."""
    known = options()
    switch = known.get(name) or known.get(_CALLED.get(name, ""))
    if switch is not None:
        return _with_value(switch, value)
    return f"`{_with_value(OF_FIND[name], value)}`" if known and name in OF_FIND else ""


def _with_value(switch: Switch, value: str) -> str:
    if value == "True":
        return switch.name
    if value in ("False", "None"):
        return switch.off or f"no {switch.name}"
    return f"{switch.name} {value.strip(chr(34) + chr(39) + '[]').replace(', ', ',')}".rstrip()
