"""Saved queries: the address of a list with its filters, under a name, of a user or shared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.item import check_text
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import SAVED_QUERY
from automate_kernel.storage.values import text_problem

__all__ = ["SavedQueries", "SavedQuery"]

_LONGEST = 2_000  # characters of a query
_MOST = 100  # of a user for a page, and shared for one


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query of *page* (``executions``), as its address has it (``status=FAILED``)."""

    id: str
    name: str
    page: str
    query: str
    user_name: str
    tenant_id: str | None
    shared: bool
    created_at: datetime


class SavedQueries:
    """The saved queries of *storage*: a user sees the own ones, and those its tenant shares."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(
        self,
        name: str,
        page: str,
        query: str,
        *,
        user_name: str,
        tenant_id: str | None = None,
        shared: bool = False,
        transaction: Any = None,
    ) -> str:
        """
        Keep *query* under *name* for the user, in the place of one with this name; return its id.

        Raises `PayloadError` for a name that can't be kept, and ``RESOURCE_EXHAUSTED`` after a
        hundred for a page.
        """
        check_text(name, "the name", column="kind")
        if len(query) > _LONGEST or text_problem(query):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"a query is a text of at most {_LONGEST} characters"
            )
        key = json.dumps([tenant_id, user_name, page, name]).encode("ascii")
        row: Row = {
            "id": hashlib.sha256(key).hexdigest(), "name": name, "page": page, "query": query,
            "user_name": user_name, "tenant_id": tenant_id, "shared": int(shared),
            "created_at": Now(),
        }  # fmt: skip

        def put(rows: Rows) -> None:
            changes = {"query": query, "shared": int(shared)}
            if rows.update(SAVED_QUERY, [Where("id", "eq", row["id"])], changes):
                return
            its = [Where("page", "eq", page), Where("user_name", "eq", user_name)]
            if rows.count(SAVED_QUERY, (), its)[0]["n"] >= _MOST:
                raise AutomateError(
                    ErrorCodes.RESOURCE_EXHAUSTED, f"you have {_MOST} saved queries of this page",
                    hint="delete one that you don't need",
                )  # fmt: skip
            rows.insert(SAVED_QUERY, [row])

        write(self._storage, transaction, put)
        return str(row["id"])

    def find(self, page: str, *, user_name: str, tenant_id: str | None = None) -> list[SavedQuery]:
        """Return the user's queries of *page* and those that are shared in the tenant, by name."""
        of = [Where("page", "eq", page), Where("tenant_id", "eq", tenant_id)]
        found: dict[str, Row] = {}
        with self._storage.begin(atomic=False) as rows:
            for its in (Where("user_name", "eq", user_name), Where("shared", "eq", 1)):
                some = rows.select(SAVED_QUERY, [*of, its], order_by=["created_at"], limit=_MOST)
                found.update((row["id"], row) for row in some)
        ordered = sorted(found.values(), key=lambda row: (row["name"].casefold(), row["id"]))
        return [SavedQuery(**{**row, "shared": bool(row["shared"])}) for row in ordered]

    def delete(
        self,
        query_id: str,
        *,
        user_name: str,
        tenant_id: str | None = None,
        transaction: Any = None,
    ) -> bool:
        """Delete a query of the user; return False if the user has none with this id."""
        where = [
            Where("id", "eq", query_id),
            Where("user_name", "eq", user_name),
            Where("tenant_id", "eq", tenant_id),
        ]
        return bool(write(self._storage, transaction, lambda rows: rows.delete(SAVED_QUERY, where)))
