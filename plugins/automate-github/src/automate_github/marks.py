"""Marks in texts, by which another attempt of a step finds what the first one has made."""

from __future__ import annotations

import hashlib

from automate_kernel.operations.context import Call


def mark_of(call: Call) -> str | None:
    """Return the mark of a call, a comment in HTML that GitHub doesn't show; None without a key."""
    digest = _digest(call)
    return None if digest is None else f"<!-- automate:{digest} -->"


def trailer_of(call: Call) -> str | None:
    """Return the mark of a call for the message of a commit, where HTML is shown as it is."""
    digest = _digest(call)
    return None if digest is None else f"Automate-Call: {digest}"


def marked(text: str, mark: str | None) -> str:
    """Return *text* with *mark* below it."""
    return text if mark is None else f"{text}\n\n{mark}".lstrip("\n")


def _digest(call: Call) -> str | None:
    """Return a hash of the call's idempotency key, which each step has: it says nothing of it."""
    if call.idempotency_key is None:
        return None
    about = f"automate\n{call.operation}\n{call.idempotency_key}".encode()
    return hashlib.sha256(about).hexdigest()[:32]
