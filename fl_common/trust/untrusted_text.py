"""Text from outside (a client's, a server's, a file's name) as it may be shown: in terminals, logs, plots, labels."""

import unicodedata

MOST = 500  # characters of one piece of text


def clean(text: object, *, most: int = MOST, lines: bool = False) -> str:
    """Return text that steers no terminal, forges no line and can be encoded anywhere.

    Escape sequences, marks of direction, surrogates and other characters that are not printed are spelled out (\\x1b);
    line breaks too, unless `lines`. What is beyond `most` characters is cut.
    """
    found = str(text)
    if len(found) > most:
        found = found[: most - 1] + "…"
    if found.isprintable():
        return found
    return "".join(each if each.isprintable() or (lines and each == "\n") else _spelled(each) for each in found)


def _spelled(character: str) -> str:
    if character == "\t" or unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")
