"""The rows of an execution's relatives: its children, and the chain that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from automate_kernel.outbox.item import NewItem
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import EXECUTION
from automate_kernel.workflows.decide.children import cancel_item, end_items
from automate_kernel.workflows.execution import Execution


def outside_items(rows: Rows, execution: Execution) -> list[NewItem]:
    """Return the items for parent and children of an execution that no worker has ended."""
    its = [Where("parent_id", "eq", execution.id)]
    items = end_items(execution)
    if rows.select(EXECUTION, its, limit=1, columns=("id",)):
        items.append(cancel_item(execution, {"parent_id": execution.id}))
    return items


def live_successor(rows: Rows, execution_id: str, its: Sequence[Where] = ()) -> str | None:
    """
    Return the id of the execution that goes on for one that was continued; None without any.

    The first of a chain leads to it, too, once it is purged. *its* are other conditions on both.
    """
    this = [Where("id", "eq", execution_id), *its]
    found = rows.select(EXECUTION, this, columns=("chain_id", "successor_id"))
    if found and found[0]["successor_id"] is None:
        return None
    first = (found[0]["chain_id"] if found else None) or execution_id
    chain = [Where("chain_id", "eq", first), Where("status", "in", LIVE), *its]
    live = rows.select(EXECUTION, chain, limit=1, columns=("id",))
    return live[0]["id"] if live else None


def ends_of_chains(rows: Rows, first_ids: Iterable[str]) -> dict[str, str]:
    """Return the ids of the last executions of these chains, by those of the first."""
    chains = Where("chain_id", "in", sorted(first_ids))
    last = [chains, Where("successor_id", "eq", None)]
    found = rows.select(EXECUTION, last, columns=("id", "chain_id"))
    return {row["chain_id"]: row["id"] for row in found}
