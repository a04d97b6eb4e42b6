"""A step that waits for an approval, as the engine leaves it in the tables."""

from __future__ import annotations

import json
from typing import Any

from automate_kernel import Kernel
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.query import Now
from automate_kernel.storage.tables import APPROVER, EXECUTION, WAIT
from automate_kernel.workflows.decide.waits import approval_key
from automate_kernel.workflows.store.signal_store import approver_rows


def ask(
    kernel: Kernel, *, seconds: float | None = None, tenant: str | None = None, **details: Any
) -> str:
    """Let a step called `ok` wait for an approval, and return its execution's id."""
    execution_id = new_id()
    row: dict[str, Any] = {
        "id": execution_id, "workflow": "refund", "definition_id": "d", "status": "RUNNING",
        "event": {"id": "e", "name": "refund"}, "tenant_id": tenant, "item_id": new_id(),
        "created_at": Now(), "updated_at": Now(),
    }  # fmt: skip
    wait = {
        "id": new_id(), "key": approval_key(execution_id, "ok", -1), "about": "approval",
        "execution_id": execution_id, "step_id": "ok", "position": -1, "tenant_id": tenant,
        "details": {"title": "Pay it back?", "asked": new_id(), **details}, "created_at": Now(),
        "expires_at": None if seconds is None else Now(seconds),
    }  # fmt: skip
    with kernel.storage.begin() as rows:
        rows.insert(EXECUTION, [row])
        rows.insert(WAIT, [wait])
        asked = {**wait, "details": json.dumps({"by": [], **details})}
        rows.insert(APPROVER, list(approver_rows(asked)))
    return execution_id
