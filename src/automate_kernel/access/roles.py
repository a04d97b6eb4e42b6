"""The roles of people and tokens, and what each may do on the pages and in the API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

__all__ = ["RIGHTS", "ROLES", "SCOPES", "Right", "rights_of", "scopes_of"]

Right = Literal["view", "steer", "discard", "decide", "start", "edit", "review", "administer"]

RIGHTS: Mapping[str, frozenset[Right]] = {
    "viewer": frozenset({"view"}),
    "operator": frozenset({"view", "steer", "discard"}),
    "approver": frozenset({"view", "decide"}),
    "author": frozenset({"view", "steer", "discard", "start", "edit"}),
    "admin": frozenset(get_args(Right)),
}
"""
The rights that each role gives.

To *steer* is to retry, pause, cancel and the like, and to *discard* is to delete items. To *review*
is to read in the audit trail what was done with items, executions and the like; who *administers*
reads all of it, sessions and tokens too.
"""
ROLES = tuple(RIGHTS)
"""The roles that give rights."""
SCOPES: Mapping[str, str] = {
    "api:read": "read from the project's own views that ask for no other scope",
    "api:write": "write to them",
    "workflows:read": "list workflows and read their definitions",
    "workflows:start": "begin executions",
    "workflows:write": "save, publish and restore workflows in the database, turn them on and off",
    "executions:read": "list executions and read what their steps gave",
    "executions:write": "cancel, pause, resume and repeat executions, and pause workflows",
    "approvals:read": "list the steps that wait for a person",
    "approvals:write": "approve and reject",
    "events:write": "emit events",
    "outbox:read": "list outbox items, count them, read their payloads",
    "outbox:write": "requeue, cancel, discard and reschedule items",
    "operations:read": "list the operations that may be called, with the choices of their fields",
    "operations:call": "call these",
    "plugins:read": "list plugins and their states",
    "workers:read": "list workers, and read whether the service is healthy",
    "tokens:write": "list, make and revoke tokens; a new one can do no more than its maker's",
}
"""The scopes that our own views ask for, and what each allows; ``outbox:*`` and ``*`` work too."""
_SCOPES_OF: Mapping[Right, frozenset[str]] = {
    "view": frozenset(name for name in SCOPES if name.endswith(":read") and name != "api:read"),
    "steer": frozenset({"executions:write", "outbox:write"}),
    "discard": frozenset({"outbox:write"}),
    "decide": frozenset({"approvals:write"}),
    "start": frozenset({"workflows:start", "events:write", "operations:call"}),
    "review": frozenset(),
    "edit": frozenset({"workflows:write"}),
    "administer": frozenset({"*"}),
}


def rights_of(roles: Collection[str]) -> frozenset[Right]:
    """Return the rights that *roles* give together; unknown roles give none."""
    return frozenset[Right]().union(*(RIGHTS.get(role, ()) for role in roles))


def scopes_of(roles: Collection[str]) -> frozenset[str]:
    """Return the scopes of the API that *roles* give together."""
    return frozenset[str]().union(*(_SCOPES_OF[right] for right in rights_of(roles)))
