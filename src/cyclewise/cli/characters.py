"""Text for a stream that cannot write every character: what stands for those that it lacks."""

_BLOCKS = dict(zip("▁▂▃▄▅▆▇█", "_..::oO#", strict=True))
_SIGNS = {
    **dict.fromkeys("─━", "-"), **dict.fromkeys("│┃", "|"), **dict.fromkeys("├└┏┓┗┛┡┩┳┻╇┼┬┴┤┌┐┘", "+"),
    **dict.fromkeys("–—−", "-"), "…": "...", "±": "+-", "×": "x",
}  # fmt: skip
_STAND_INS = str.maketrans({**_BLOCKS, **_SIGNS})


def fitting(text: str, encoding: str | None) -> str:
    """Return the text if it can be written in an encoding, else with other signs for what is missing there.

    >>> fitting("0.5 ± 0.1 │▁█", "latin-1"), fitting("0.5 ± 0.1 │▁█", "utf-8"), fitting("n ≥ 3", "ascii")
    ('0.5 ± 0.1 |_#', '0.5 ± 0.1 │▁█', 'n ? 3')
    """
    name = encoding or "utf-8"
    return "".join(map(lambda character: _written(character, name), text)) if not _fits(text, name) else text


def _written(character: str, encoding: str) -> str:
    if _fits(character, encoding):
        return character
    return character.translate(_STAND_INS).encode(encoding, "replace").decode(encoding)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
