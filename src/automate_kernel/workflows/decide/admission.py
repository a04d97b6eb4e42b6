"""
Admission: whether a start of a workflow begins an execution, and when.

A workflow says it with ``concurrency``, ``rate_limit`` and ``debounce``. Starts of one key must not
decide at the same time, so each takes the *start locks* of its keys first: rows, see
`automate_kernel.workflows.store.start_locks`.

No start lock counts the executions that may go on at once. Their wake-ups share a concurrency key
of the outbox, and each keeps its slot until it ends; see `automate_kernel.outbox.concurrency_keys`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.decide.waits import plain_value
from automate_kernel.workflows.definition.admission import Concurrency, Debounce, StartRate
from automate_kernel.workflows.definition.model import Workflow


class SkippedError(AutomateError):
    """
    Raised for a start that begins no execution, since as many as may go on at once do.

    `running` is the id of the oldest of them.
    """

    def __init__(self, workflow: str, running: str) -> None:
        self.running: str = running
        super().__init__(
            ErrorCodes.FAILED_PRECONDITION,
            f"workflow {workflow!r} was not started: execution {running} has not ended",
            hint="start it again later, or let starts wait: with when_full: queue in its"
            " concurrency, or overlap: queue in its schedule",
            retryable=False,
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """
    The conditions on one start of a workflow, with their keys as the event gives them.

    *concurrency_key* is that of the wake-up, *rate_lock* and *debounce_lock* are ids of rows.
    """

    concurrency: Concurrency | None = None
    concurrency_key: str | None = None
    rate_limit: StartRate | None = None
    rate_lock: str = ""
    debounce: Debounce | None = None
    debounce_lock: str = ""

    @property
    def locks(self) -> list[str]:
        """The ids of the start locks to take before it is decided."""
        decides = self.concurrency is not None and self.concurrency.when_full != "queue"
        ids = (
            self.concurrency_key if decides else None,
            self.rate_lock if self.rate_limit else None,
            self.debounce_lock if self.debounce else None,
        )
        return [each for each in ids if each is not None]

    def waiting(self) -> Admission:
        """Return these conditions for a start that must come to its turn: by a queue."""
        concurrency = self.concurrency and self.concurrency.model_copy(
            update={"when_full": "queue"}
        )
        return replace(self, concurrency=concurrency, debounce=None)


def admission_of(
    workflow: Workflow, tenant_id: str | None, keys: Mapping[str, Any]
) -> Admission | None:
    """Return the conditions on a start of *workflow*, whose rendered *keys* are by field."""

    def lock(field: str) -> str:
        about = [field, workflow.name, tenant_id, plain_value(keys.get(field))]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    concurrency, rate, debounce = workflow.concurrency, workflow.rate_limit, workflow.debounce
    if concurrency is None and rate is None and debounce is None:
        return None
    return Admission(
        concurrency,
        # Half of it: beside the tenant's id there is less room in the outbox.
        lock("concurrency")[:32] if concurrency is not None else None,
        rate,
        lock("rate_limit") if rate is not None else "",
        debounce,
        lock("debounce") if debounce is not None else "",
    )


# -- decisions -------------------------------------------------------------------------------------
