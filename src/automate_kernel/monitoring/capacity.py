"""The diagnosis of connections: whether a database's server takes as many as workers may open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.monitoring.diagnosis import Finding
from automate_kernel.storage.connections import read_connections
from automate_kernel.storage.errors import ROOM

if TYPE_CHECKING:
    from automate_kernel.outbox import OutboxStore
    from automate_kernel.storage import Storage


def capacity_findings(
    storage: Storage, outbox: OutboxStore, *, processes: int, slots: int
) -> list[Finding]:
    """
    Return whether the server takes all connections of the workers; nothing where it has no limit.

    They are those that report, or as many *processes* as the settings name, each with *slots*.
    """
    most_connections = getattr(storage, "most_connections", None)
    if most_connections is None:
        return []
    with storage.begin(atomic=False) as rows:
        found = read_connections(rows)
    if found is None:
        return []
    workers = max(processes, sum(each.alive for each in outbox.workers()))
    each = most_connections(slots)
    text = f"{found.used} of {found.room} connections are open ({found.setting}"
    text += f" {found.limit}, {found.reserved} of them reserved)" if found.reserved else ")"
    text += f"; {workers} worker{'s' if workers > 1 else ''} may open {each} each"
    if workers * each > found.room:
        return [Finding("database", "warn", f"{text}: more than there are", ROOM)]
    if found.scarce:
        return [Finding("database", "warn", f"{text}: nearly none is left", ROOM)]
    return [Finding("database", "ok", text)]
