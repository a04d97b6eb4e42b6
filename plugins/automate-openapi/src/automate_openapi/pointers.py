"""JSON Pointers, as the references of a document write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote


def value_at(root: Any, pointer: str) -> Any:
    """Return what *pointer* (``/components/schemas/Pet``) leads to. Raises `LookupError`."""
    found = root
    if pointer and not pointer.startswith("/"):
        raise LookupError(pointer)
    for part in pointer.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdigit() and len(key) < 9:
            found = found[int(key)]
        else:
            raise LookupError(pointer)
    return found
