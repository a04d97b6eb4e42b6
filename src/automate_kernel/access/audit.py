"""The audit trail: who did what, to which object, with what outcome; never a payload's values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from automate_kernel.base.arguments import check_age, check_limit, check_names
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Storage, write
from automate_kernel.storage.tables import AUDIT, TABLES
from automate_kernel.storage.values import storable

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AuditFilter", "AuditLog", "AuditPage", "AuditRecord", "Outcome"]

Outcome = Literal["asked", "done", "nothing", "refused", "failed"]
"""The outcome of an action: ``asked`` until it is known, ``nothing`` if nothing had to change."""
_TEXTS = ("actor_id", "actor", "tenant_id", "action", "model", "object_id", "object_repr")
_SHOWN = 1_000  # characters of a value in the details


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """
    An action: *actor* did *action* to the object *object_id* of the kind *model*.

    *actor_id* distinguishes users of one name, *object_repr* is the object's name at that time.
    *changes* has the former and the new value by field, *details* what else there is to know.
    """

    id: str
    created_at: datetime
    actor_id: str | None
    actor: str
    tenant_id: str | None
    action: str
    model: str
    object_id: str | None
    object_repr: str
    outcome: str
    changes: Mapping[str, Any]
    details: Mapping[str, Any]


class AuditFilter(TypedDict, total=False):
    """Conditions on entries; all must hold, and None is no condition. *models* are several."""

    tenant_id: str | None
    actor: str | None
    action: str | None
    model: str | None
    models: Collection[str] | None
    object_id: str | None
    outcome: str | None
    created_after: datetime | None
    created_before: datetime | None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """
    A page of entries, the latest first; *after* leads to the next one, and is empty at the end.

    *looked* is above 0 if there may be more, but only so many entries were looked through.
    """

    records: list[AuditRecord] = field(default_factory=list)
    after: str = ""
    looked: int = 0


class AuditLog:
    """The entries of *storage*; *redact* takes secrets out of their texts."""

    def __init__(self, storage: Storage, redact: Callable[[Any], Any]) -> None:
        self._storage = storage
        self._redact = redact

    def write(
        self,
        action: str,
        *,
        actor: str,
        model: str,
        actor_id: str | None = None,
        object_id: str | None = None,
        object_repr: str = "",
        tenant_id: str | None = None,
        outcome: Outcome = "done",
        details: Mapping[str, Any] | None = None,
        transaction: Any = None,
    ) -> str:
        """
        Write an entry and return its id; with *transaction* as a part of that.

        Before an order is carried out, write that it was ``asked`` for, and `conclude` it after: so
        nothing is done without an entry. Raises `StorageError` if the entry can't be written.
        """
        texts = {
            "actor_id": actor_id, "actor": actor, "tenant_id": tenant_id, "action": action,
            "model": model, "object_id": object_id, "object_repr": object_repr,
        }  # fmt: skip
        row: Row = {
            "id": new_id(),
            "created_at": Now(),
            **{name: self._text(name, texts[name]) for name in _TEXTS},
            "outcome": outcome,
            "changes": {},
            "details": self._clean(details or {}),
        }
        try:
            write(self._storage, transaction, lambda rows: rows.insert(AUDIT, [row]))
        except StorageError as error:
            raise StorageError(
                "the audit trail can't be written, so nothing was done",
                code=error.code, retryable=error.retryable, hint=error.hint,
            ) from error  # fmt: skip
        return str(row["id"])

    def conclude(
        self,
        record_id: str,
        outcome: Outcome,
        *,
        details: Mapping[str, Any] | None = None,
        transaction: Any = None,
    ) -> None:
        """Write down the *outcome* of what was ``asked`` for; *details* replace the former."""
        changes: Row = {"outcome": outcome}
        if details is not None:
            changes["details"] = self._clean(details)
        where = [Where("id", "eq", record_id), Where("outcome", "eq", "asked")]
        write(self._storage, transaction, lambda rows: rows.update(AUDIT, where, changes))

    def page(
        self,
        *,
        after: str = "",
        limit: int = 50,
        seconds: float = 0.0,
        **matching: Unpack[AuditFilter],
    ) -> AuditPage:
        """
        Return a page of the entries that match, the latest first.

        Entries of a tenant, an actor or an object are read along an index. Other conditions are
        looked for in 20,000 entries, and in as many again for *seconds* while none is found.
        """
        check_names(matching, AuditFilter.__annotations__, "the audit trail")
        given: dict[str, Any] = {
            name: value for name, value in matching.items() if value is not None
        }
        times: dict[str, Any] = {"created_after": "ge", "created_before": "lt"}
        along = [
            Where("created_at", times[name], given.pop(name)) for name in times if name in given
        ]
        several = given.pop("models", None)
        where = {name: Where(name, "eq", value) for name, value in given.items()}
        if several is not None:
            where["models"] = Where("model", "in", sorted(several))
        name = f"audit {sorted(where)}"
        for leading in (("object_id", "model"), ("actor",), ("tenant_id",)):
            if leading[0] in where:
                along += [where.pop(each) for each in leading if each in where]
                break
        ranges = [IndexRange(along, ("-created_at", "-id"), list(where.values()))]
        with self._storage.begin(atomic=False) as rows:
            found = read_page(
                rows, AUDIT, ranges, name=name, after=after, limit=limit, seconds=seconds
            )
        return AuditPage([AuditRecord(**row) for row in found.rows], found.after, found.looked)

    def get(self, record_id: str) -> AuditRecord | None:
        """Return an entry, or None if there is none with this id."""
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(AUDIT, [Where("id", "eq", record_id)])
        return AuditRecord(**found[0]) if found else None

    def purge(self, *, older_than_seconds: float, limit: int = 1_000) -> int:
        """Delete up to *limit* entries that are older, and return their number."""
        age, limit = check_age(older_than_seconds, "older_than_seconds"), check_limit(limit)
        old = [Where("created_at", "lt", Now(-age))]
        return write(
            self._storage, None, lambda rows: rows.delete_some(AUDIT, old, limit, ("created_at",))
        )

    def _text(self, name: str, value: str | None) -> str | None:
        if value is None:
            return None
        most = TABLES[AUDIT].by_name[name].length
        # An entry never fails for a text in it.
        return storable(str(self._redact(str(value))))[:most]

    def _clean(self, value: Any) -> Any:
        return _short(self._redact(dict(value)))


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {storable(str(name), 200): _short(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(each) for each in value[:100]]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return storable(str(value), _SHOWN)


def tenant_of(storage: Storage, table: str, row_id: str) -> str | None:
    """Return the tenant of a row of *table*, None if it has none or isn't there."""
    with storage.begin(atomic=False) as rows:
        found = rows.select(table, [Where("id", "eq", row_id)], columns=["tenant_id"])
    return found[0]["tenant_id"] if found else None


def unknown(what: str, name: str) -> AutomateError:
    """Return the error for a *what* that isn't there, or is another tenant's."""
    return AutomateError(ErrorCodes.NOT_FOUND, f"there is no {what} {name!r}")
