"""The scopes that our own views ask tokens for."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SCOPES"]

SCOPES: Mapping[str, str] = {
    "api:read": "read from the project's own views that ask for no other scope",
    "api:write": "write to them",
    "workflows:read": "list workflows and read their definitions",
    "workflows:start": "begin executions",
    "executions:read": "list executions and read what their steps gave",
    "executions:write": "cancel, resume and repeat executions",
    "events:write": "emit events",
    "outbox:read": "list outbox items, count them, read their payloads",
    "outbox:write": "requeue, cancel, discard and reschedule items",
    "plugins:read": "list plugins and their states",
}
"""The scopes that our own views ask for, and what each allows; ``outbox:*`` and ``*`` work too."""
