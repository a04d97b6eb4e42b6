"""
Tracebacks and groups of errors without a value: where an error was raised.

A traceback as Python prints it shows the texts of errors, and with some tools local variables.
These hold files, lines, functions and source lines only. The kernel's own frames are counted and
left out: a reader looks for their own code.
"""

from __future__ import annotations

import linecache
import logging
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from automate_kernel.base.errors import AutomateError

MAX_TRACE = 8_000
"""The most characters of a traceback that are kept."""
MAX_GROUP = 200
"""The most characters of a group's name."""

# Frames kept of a stack overflow: of its begin, which shows the caller, and of its end.
_FIRST, _LAST = 8, 16
_MOST_CAUSES = 5
_LONGEST_LINE = 200
_LED_TO = "\n\nwhich led to:\n\n"

_SOURCES = Path(__file__).parents[2]
_OURS = tuple(
    f"{_SOURCES / name}{os.sep}"
    for name in (
        "automate_kernel",
        "automate_cli",
        "automate_testing",
        "automate_sqlalchemy",
        "automate_django",
    )
)
_Frame = tuple[FrameType, int]


# -- the traceback ----------------------------------------------------------------------------


def trace_of(
    error: BaseException, redact: Callable[[str], str] = str, *, source: bool = True
) -> str | None:
    """
    Return the traceback of *error* from the first frame that is not ours.

    It is None if the kernel itself refused. The error's causes come first, as in Python's own
    tracebacks, without their texts: an author who rewords an error may do so to hide its text.
    *redact* takes the secrets out of the whole. Without a redactor leave out the *source* lines,
    which may have a secret written into them.
    """
    texts = [text for each in reversed(_chain(error)) if (text := _text(each, source))]
    if not texts and not isinstance(error, AutomateError):
        # A bug of ours. Its last frames are what a report of it needs.
        last = list(walk_tb(error.__traceback__))[-5:]
        texts = [_frames_text(last, source) + type(error).__name__]
    return _cut(redact(_LED_TO.join(texts))) if texts else None


def raised_at(error: BaseException) -> str:
    """
    Return the type of *error* and where it was raised: ``ImportError in /shop/actions.py, line 3``.

    That is the innermost line of the authors' files; if none is in the traceback, the type alone.
    """
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{name} in {error.filename}, line {error.lineno}"
    for frame, number in reversed(_theirs(error)):
        filename = frame.f_code.co_filename
        # Generated code, such as a dataclass's __init__, is in no file.
        if not (_is_ours(frame) or _is_installed(filename) or filename.startswith("<")):
            return f"{name} in {filename}, line {number}"
    return name


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error*, its cause, and so on; of a group of errors the first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) < _MOST_CAUSES:
        if any(following is each for each in chain):
            break
        chain.append(following)
        inner = getattr(following, "exceptions", None)
        if isinstance(inner, (tuple, list)) and inner and isinstance(inner[0], BaseException):
            following = inner[0]
        elif following.__cause__ is not None:
            following = following.__cause__
        else:
            following = None if following.__suppress_context__ else following.__context__
    return chain


def _text(error: BaseException, source: bool) -> str:
    # An error that has crossed `invoke` has lost its frames, and brings their text.
    earlier = error.trace if isinstance(error, AutomateError) else None
    frames = _theirs(error)
    if not frames:
        return earlier or ""
    text = _frames_text(frames, source) + type(error).__name__
    return f"{earlier}{_LED_TO}{text}" if earlier else text


def _theirs(error: BaseException) -> list[_Frame]:
    """Return the frames from the first that is not ours on; none if all are ours."""
    frames = list(walk_tb(error.__traceback__))
    begin = next((i for i, (frame, _) in enumerate(frames) if not _is_ours(frame)), len(frames))
    return frames[begin:]


def _frames_text(frames: Sequence[_Frame], source: bool) -> str:
    left_out = len(frames) - _FIRST - _LAST
    if left_out <= 0:
        return "".join(_lines(frames, source))
    first, last = _lines(frames[:_FIRST], source), _lines(frames[-_LAST:], source)
    return "".join([*first, f"  [{left_out} more frames]\n", *last])


def _lines(frames: Sequence[_Frame], source: bool) -> Iterator[str]:
    all_ours = all(_is_ours(frame) for frame, _ in frames)
    for ours, group in groupby(frames, key=lambda each: _is_ours(each[0]) and not all_ours):
        if ours:
            count = sum(1 for _ in group)
            yield f"  [{count} frame{'' if count == 1 else 's'} of the kernel]\n"
            continue
        for frame, number in group:
            code = frame.f_code
            yield f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
            found = linecache.getline(code.co_filename, number, frame.f_globals) if source else ""
            if line := found.strip():
                yield f"    {line[:_LONGEST_LINE]}\n"


def _cut(text: str) -> str:
    if len(text) <= MAX_TRACE:
        return text
    half = MAX_TRACE // 2 - 5
    return f"{text[:half]}\n[…]\n{text[-half:]}"


# -- the group --------------------------------------------------------------------------------


def group_of(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """
    Return the name of the error's group: ``KeyError in shop.actions.charge``.

    It is the error's type and the innermost function of the code that failed, without line or
    value: the same for every item, and after an unrelated change of the file. An error that a
    plugin's ``normalize_error`` raised from another is in the group of that other. An error that
    the kernel raised has no place. A plain `AutomateError` has its code.
    """
    if isinstance(error, AutomateError) and error.group:
        return error.group
    root, *_ = chain = _chain(error)
    while type(root) is AutomateError and root.__cause__ is not None and len(chain) > 1:
        root, *_ = chain = chain[1:]
    if isinstance(root, AutomateError) and root.group:
        return root.group
    place = next((found for each in chain if (found := _place(_theirs(each)))), "")
    inner = getattr(root, "exceptions", None)
    name = _name(root)
    if inner and len(chain) > 1:
        name = f"{name} of {_name(chain[1])}"
        place = _place(_theirs(chain[1])) or place
    return redact(f"{name} in {place}" if place else name)[:MAX_GROUP]


def _name(error: BaseException) -> str:
    if type(error) is AutomateError:
        return f"AutomateError {error.code.value}"
    return type(error).__name__


def _place(frames: Sequence[_Frame]) -> str:
    """Return the innermost function of the authors' code among *frames*."""
    own = [frame for frame, _ in frames if not _is_ours(frame) and _named(frame)]
    if not own:
        return ""
    written = [frame for frame in own if not _is_installed(frame.f_code.co_filename)]
    if not written:
        # A plugin that is installed: its own functions, and not those of a library that it calls.
        root = _module(own[0]).partition(".")[0]
        written = [frame for frame in own if _module(frame).partition(".")[0] == root]
    frame = written[-1]
    function = getattr(frame.f_code, "co_qualname", None) or _qualified(frame)
    return f"{_module(frame)}.{function.replace('<locals>.', '')}"


def _named(frame: FrameType) -> bool:
    # Comprehensions are functions on some versions of Python, and on others not.
    name = frame.f_code.co_name
    return not name.startswith("<") or name in ("<lambda>", "<module>")


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    if name == "__main__" or not isinstance(name, str):
        spec: Any = frame.f_globals.get("__spec__")
        name = getattr(spec, "name", None) or Path(frame.f_code.co_filename).stem
    return name


def _qualified(frame: FrameType) -> str:
    """Return the function's name with its class, as Python 3.11 and later have it."""
    code = frame.f_code
    given = code.co_varnames[:1]
    owner: Any = frame.f_locals.get(given[0]) if given in (("self",), ("cls",)) else None
    for cls in getattr(owner if isinstance(owner, type) else type(owner), "__mro__", ()):
        function = cls.__dict__.get(code.co_name)
        if getattr(getattr(function, "__func__", function), "__code__", None) is code:
            return str(function.__qualname__ if hasattr(function, "__qualname__") else code.co_name)
    return code.co_name


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


@lru_cache(1024)
def _is_installed(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    parts = Path(filename).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    paths = sysconfig.get_paths()
    return filename.startswith((paths["stdlib"], paths["platstdlib"]))


# -- passing it on ----------------------------------------------------------------------------


def mark(clean: AutomateError, error: BaseException, redact: Callable[[str], str]) -> None:
    """
    Give *clean* the trace and the group of *error*, and a note with the trace.

    A printed traceback of *clean* then shows the place, though its cause is cut off.
    """
    clean.trace, clean.group = trace_of(error, redact), group_of(error, redact)
    if clean.trace and sys.version_info >= (3, 11):
        clean.add_note(f"It was raised here:\n{clean.trace}")


def log_error(logger: logging.Logger, level: int, text: str, *args: Any, trace: str | None) -> None:
    """
    Log *text* with *trace* as the record's traceback.

    It uses no ``exc_info``: a formatter would print the error itself, its quotations and causes.
    """
    if not logger.isEnabledFor(level):
        return
    caller = sys._getframe(1)
    record = logger.makeRecord(
        logger.name, level, caller.f_code.co_filename, caller.f_lineno, text, args, None,
        caller.f_code.co_name,
    )  # fmt: skip
    if trace:
        record.exc_text = f"Traceback (most recent call last):\n{trace}"
    logger.handle(record)
