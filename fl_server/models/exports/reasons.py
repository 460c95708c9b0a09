"""What a library's exception says, in one short line for a person."""

import re

from fl_common.trust.disclosure import type_of

MARKS = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints in bold
CALL = "Arguments received by"  # and lists whole tensors
MOST = 300  # characters


def reason(error: Exception) -> str:
    """Return the kind of an exception and what it says, without colours, line breaks and lists of arguments."""
    text = " ".join(MARKS.sub("", str(error)).partition(CALL)[0].split()).rstrip(".")
    return f"{type_of(error)}: {text:.{MOST}}" if text else type_of(error)
