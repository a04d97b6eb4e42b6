"""
Waits: what a step waits for, and the signals that answer it.

A step that waits has a row in `automate_kernel.storage.tables.WAIT` with a key. Whatever may end
the wait comes in as an outbox item of the kind `SIGNAL` with the same key, in the transaction of
whoever sends it. A worker keeps the signal, and wakes the executions that wait for its key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from automate_kernel.outbox import NewItem
from automate_kernel.workflows.execution import Event

SIGNAL = "automate.signal"
"""The kind of the outbox item that brings a signal."""


def wait_key(*parts: Any) -> str:
    """Return the key of a wait: the SHA-256 (hex) over its *parts*, which are JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def approval_key(execution_id: str, step_id: str, position: int) -> str:
    """Return the key of the decision on one approval."""
    return wait_key("approval", execution_id, step_id, position)


def signal_item(key: str, event: Event, **options: Any) -> NewItem:
    """Return the outbox item that brings *event* to those that wait for *key*."""
    return NewItem(SIGNAL, {"key": key, "event": event.to_json()}, **options)
