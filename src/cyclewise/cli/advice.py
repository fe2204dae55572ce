"""What an error or a remedy advises, in the words of the command line: options in place of Python's arguments."""

import re

from cyclewise.cli.commands import Switch, options

# What a command calls otherwise than the function behind it.
_CALLED = {"tune": "rates", "target": "goal", "num_steps": "steps"}
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
    """Return a text with the arguments that are options of the command that runs written as these."""
    return _NAME.sub(_named, _ARGUMENT.sub(_written, _NONE.sub("or leave it out", text)))


def _written(match: re.Match[str]) -> str:
    switch = _switch(match[1])
    return match[0] if switch is None else _with_value(switch, match[2])


def _named(match: re.Match[str]) -> str:
    switch = _switch(match[0])
    return match[0] if switch is None else switch.name


def _switch(name: str) -> Switch | None:
    known = options()
    return known.get(name) or known.get(_CALLED.get(name, ""))


def _with_value(switch: Switch, value: str) -> str:
    if value == "True":
        return switch.name
    if value in ("False", "None"):
        return switch.off or f"no {switch.name}"
    return f"{switch.name} {value.strip(chr(34) + chr(39) + '[]').replace(', ', ',')}".rstrip()
