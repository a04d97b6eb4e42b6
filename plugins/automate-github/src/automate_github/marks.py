"""Marks in texts, by which another attempt of a step finds what the first one has made."""

from __future__ import annotations

import hashlib

from automate_kernel.operations.context import Call


def mark_of(call: Call) -> str | None:
    """
    Return the mark of a call, a comment in HTML that GitHub doesn't show; None without a key.

    It is a hash of the call's idempotency key, which each step has, and says nothing about it.
    """
    if call.idempotency_key is None:
        return None
    digest = hashlib.sha256(f"automate\n{call.operation}\n{call.idempotency_key}".encode())
    return f"<!-- automate:{digest.hexdigest()[:32]} -->"


def marked(text: str, mark: str | None) -> str:
    """Return *text* with *mark* below it."""
    return text if mark is None else f"{text}\n\n{mark}".lstrip("\n")
