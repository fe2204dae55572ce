"""What an error or a remedy advises, in the words of the command line: options in place of Python's arguments."""

import re

from cyclewise.cli.commands import Switch, options

# What a command calls otherwise than the function behind it.
_CALLED = {"tune": "rates", "target": "goal", "num_steps": "steps"}
_ARGUMENT = re.compile(r"\b([a-z]\w*)=(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^\s,;()\[\]`]*)")
# A name of one word is an English word too.
_NAME = re.compile(r"(?<![\w.-])([a-z]+_\w+)\b(?!\()")


def of_error(message: str) -> str:
    """Return the message of an error with its way out, what comes after the first semicolon, for the command line."""
    problem, semicolon, way_out = message.partition("; ")
    return problem + semicolon + advice(way_out)


def advice(text: str) -> str:
    """Return a text with the arguments that are options of the command that runs written as these."""

    def written(match: re.Match[str]) -> str:
        switch = _switch(match[1])
        return match[0] if switch is None else _with_value(switch, match[2])

    def named(match: re.Match[str]) -> str:
        switch = _switch(match[1])
        return match[0] if switch is None else switch.name

    return _NAME.sub(named, _ARGUMENT.sub(written, text))


def _switch(name: str) -> Switch | None:
    known = options()
    return known.get(name) or known.get(_CALLED.get(name, ""))


def _with_value(switch: Switch, value: str) -> str:
    if value == "True":
        return switch.name
    if value in ("False", "None"):
        return switch.off or f"no {switch.name}"
    return f"{switch.name} {value.strip(chr(34) + chr(39) + '[]').replace(', ', ',')}".rstrip()
