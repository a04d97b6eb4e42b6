"""Text of models as every database and reader takes it."""

from __future__ import annotations

from typing import Any


def readable(value: Any) -> Any:
    """
    Return *value*, text or JSON, without NUL and halves of characters.

    Models write both now and then. Two halves are one character, which a stream has cut in two; one
    alone, and NUL, become U+FFFD. An answer that is paid for would else be lost.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return joined.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {readable(name): readable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [readable(each) for each in value]
    return value
