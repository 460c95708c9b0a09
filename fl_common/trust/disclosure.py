"""What of an error may leave a client: its type, our own message without the values in it, the place in a user's file.

The text of an exception can hold a client's data: `could not convert string to float: 'Smith, John'`. It stays in the
client's own log.
"""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from fl_common.errors import ParterreError
from fl_common.trust.untrusted_text import clean

LONGEST = 2000
OURS = ("fl_common", "fl_client", "fl_server", "fl_simulation", "fl_cli", "parterre", "strategies")


def disclosed(error: BaseException) -> str:
    """Return the text of `error` that may be sent to a server. Never calls `str` of an exception."""
    chain = list(_chain(error))
    said = error.disclosable if isinstance(error, ParterreError) and _raised_by_us(error) else ""
    cause = next((each for each in chain if not isinstance(each, ParterreError)), None)
    place = next(filter(None, (_place(each) for each in reversed(chain))), "")
    where = [type_of(cause)] if cause is not None and cause is not error else []
    where += [place] if place else []
    text = type_of(error) + (f": {said}" if said else "") + (f" ({', '.join(where)})" if where else "")
    return clean(text, most=LONGEST)


def type_of(error: BaseException) -> str:
    """Return the name of the error's type, or of its nearest base that a module defines: a type made while running
    may be called anything.
    """
    return next(kind.__name__ for kind in type(error).__mro__ if _is_defined(kind))


def _is_defined(kind: type) -> bool:
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of an error's traceback and the line in each, the innermost first."""
    trace, found = error.__traceback__, []
    while trace is not None:
        found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return found[::-1]


def _raised_by_us(error: BaseException) -> bool:
    innermost = next((str(frame.f_globals.get("__name__", "")) for frame, _ in _frames(error)), "")
    return innermost.partition(".")[0] in OURS


def _place(error: BaseException) -> str:
    """Return the user's own file and line that an error comes from; "" where there is none."""
    if isinstance(error, SyntaxError) and _is_users(error.filename, error.filename):
        return f"{Path(str(error.filename)).name}, line {error.lineno}"
    for frame, line in _frames(error):
        if _is_users(frame.f_code.co_filename, frame.f_globals.get("__file__")):
            return f"{Path(frame.f_code.co_filename).name}, line {line}"
    return ""


def _is_users(file: object, module: object) -> bool:
    """Say whether `file` is a module of the user's: not of Python, not installed, not ours, and no name made up."""
    if not isinstance(file, str) or file != module or not file.endswith(".py") or not Path(file).is_file():
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _not_users())


def _not_users() -> list[Path]:
    here = Path(__file__).parents[2]
    paths = sysconfig.get_paths()
    return [*(Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")), *(here / n for n in OURS)]
