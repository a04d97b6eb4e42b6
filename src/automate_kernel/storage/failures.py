"""What a database said, as an error that says how to mend it."""

from __future__ import annotations

from automate_kernel.errors import StorageError

__all__ = ["storage_error"]


def storage_error(
    error: BaseException | None, place: str, *, migrate: str, retryable: bool
) -> StorageError:
    """
    A `StorageError` with the first line of *error*, and with the remedy where it is known.

    *place* names the database without a password, *migrate* says how this host makes our tables.
    """
    text = (str(error or "").strip() or type(error).__name__).split("\n")[0]
    hint, lowered = None, text.lower()
    if (
        "no such table" in lowered
        or ("doesn't exist" in lowered and "table" in lowered)
        or ("relation" in lowered and "does not exist" in lowered)
        or "no such column" in lowered
        or "has no column" in lowered
        or "unknown column" in lowered
        or ("column" in lowered and "does not exist" in lowered)
    ):
        hint = migrate
    elif "readonly" in lowered or "read-only" in lowered:
        hint = "the database can't be written: check the file's and its folder's permissions"
    elif "unable to open" in lowered:
        hint = "check that the folder exists and may be written"
    elif "is locked" in lowered:
        hint = "another process holds SQLite's write lock: give the connection a longer timeout"
    return StorageError(f"{place}: {text}", hint=hint, retryable=retryable)
