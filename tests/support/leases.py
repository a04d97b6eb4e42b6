"""Leases that end when a test says so, and not when a busy machine has kept a worker waiting."""

from __future__ import annotations

from automate_kernel import Kernel
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import OUTBOX


def pass_leases(kernel: Kernel) -> None:
    """Let every lease be over, as if its time had passed."""
    with kernel.storage.begin() as rows:
        held = [Where("lease_expires_at", "ne", None)]
        rows.update(OUTBOX, held, {"lease_expires_at": Now(-1)})


def lapse(kernel: Kernel, pid: int) -> None:
    """Take back what the dead process *pid* held, as if its leases had run out by now."""
    held = [Where("lease_expires_at", "ne", None)]
    with kernel.storage.begin() as rows:
        owners = {row["lease_owner"] for row in rows.select(OUTBOX, held)}
        for owner in owners:
            if f"-{pid}-" in owner:
                its = [*held, Where("lease_owner", "eq", owner)]
                rows.update(OUTBOX, its, {"lease_expires_at": Now(-1)})
    kernel.outbox.reap()
