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


def outside_items(rows: Rows, ended: Sequence[Execution]) -> list[NewItem]:
    """Return the items for parents and children of executions that no worker has ended."""
    if not ended:
        return []
    theirs = [Where("parent_id", "in", [each.id for each in ended])]
    parents = {row["parent_id"] for row in rows.count(EXECUTION, ("parent_id",), theirs)}
    items = [item for each in ended for item in end_items(each)]
    return items + [
        cancel_item(each, {"parent_id": each.id}) for each in ended if each.id in parents
    ]


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
