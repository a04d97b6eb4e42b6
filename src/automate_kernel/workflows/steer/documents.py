"""
Workflows that people edit: saved in versions, published, switched off, picked up by every process.

A kernel runs what is published if it has `StoredWorkflows` as its ``workflow_source``::

    kernel = Kernel(storage, workflow_source=StoredWorkflows(storage))
    document = kernel.documents.create(text, author="ann")

A document has one published version, which events start, and a latest one, which people edit: they
are the same one, or the latest is a draft.

Each change is one transaction, or part of the caller's. It takes the stamp's row first, so changes
stand in a line: of two that would give two workflows one name, the second sees the first. All other
processes notice the new stamp.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar, get_args

from automate_kernel.base import runtime
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PayloadError,
    WorkflowError,
)
from automate_kernel.outbox.item import check_text, new_id
from automate_kernel.secrets import Redactor
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import DOCUMENT, DOCUMENT_STAMP, DOCUMENT_VERSION
from automate_kernel.storage.values import encode_json, storable
from automate_kernel.workflows.definition.document import LARGEST, read_json, read_yaml
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.steer.schedule import forget_schedules
from automate_kernel.workflows.store.catalogue import (
    ALL_TENANTS,
    AllTenants,
    Catalogue,
    SuppliedWorkflow,
)

T = TypeVar("T")
Format = Literal["yaml", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""The formats of a workflow's text."""
_STAMP = "workflows"
_AT_ONCE = 500
_BRIEF = (
    "id", "document_id", "number", "format", "digest", "restored_from", "comment", "author",
    "created_at", "published_at", "published_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """
    A workflow that people edit, by the numbers of its versions.

    *version* is the published one, None before any is; *latest* is the one that was saved last. A
    document that isn't *enabled* starts nothing.
    """

    id: str
    key: str
    name: str
    tenant_id: str | None
    enabled: bool
    version: int | None
    latest: int
    created_at: datetime
    updated_at: datetime

    @property
    def is_draft(self) -> bool:
        """True if the latest version isn't published."""
        return self.version != self.latest


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """
    A version of a workflow, whose text never changes: who saved it, and who published it when.

    *digest* is the hash of its definition, which executions are pinned to. In a list the text is
    left out.
    """

    id: str
    document_id: str
    number: int
    format: str
    digest: str
    restored_from: int | None
    comment: str
    author: str
    created_at: datetime
    published_at: datetime | None
    published_by: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem of a text: its line and field, a message, and a remedy."""

    message: str
    line: int | None = None
    field: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = f"Line {self.line}" if self.line else ""
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class StoredWorkflows:
    """The published documents of *storage* as the ``workflow_source`` of a kernel."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __repr__(self) -> str:
        return f"StoredWorkflows({self._storage.describe()!r})"

    def stamp(self) -> str | None:
        """Return the token of the last change."""
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(DOCUMENT_STAMP, [Where("id", "eq", _STAMP)])
        return found[0]["token"] if found else None

    def load(self) -> list[SuppliedWorkflow]:
        """Return the published versions of the enabled workflows, by name."""
        with self._storage.begin(atomic=False) as rows:
            documents = {
                row["id"]: row
                for row in rows.select(DOCUMENT, [Where("enabled", "eq", 1)])
                if row["version"] is not None
            }
            wanted: dict[int, list[str]] = {}
            for row in documents.values():
                wanted.setdefault(row["version"], []).append(row["id"])
            definitions: dict[str, Any] = {}
            for number, ids in wanted.items():
                for start in range(0, len(ids), _AT_ONCE):
                    some = sorted(ids[start : start + _AT_ONCE])
                    its = [Where("number", "eq", number), Where("document_id", "in", some)]
                    columns = ("document_id", "definition")
                    for found in rows.select(DOCUMENT_VERSION, its, columns=columns):
                        definitions[found["document_id"]] = found["definition"]
        return [
            SuppliedWorkflow(
                name=row["name"], tenant_id=row["tenant_id"], definition=definitions[row["id"]]
            )
            for row in sorted(documents.values(), key=lambda each: (each["name"], each["id"]))
            if row["id"] in definitions
        ]


class Documents:
    """The workflows of *storage* that people edit; *catalogue* checks them and hears of changes."""

    def __init__(self, storage: Storage, catalogue: Catalogue, redactor: Redactor) -> None:
        self._storage, self._catalogue, self._redactor = storage, catalogue, redactor

    @property
    def running(self) -> bool:
        """True if this kernel runs them: `StoredWorkflows` is its ``workflow_source``."""
        return isinstance(self._catalogue.source, StoredWorkflows)

    # -- reading --

    def get(self, document_id: str) -> StoredDocument | None:
        """Return a document, or None if there is none."""
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(DOCUMENT, [Where("id", "eq", document_id)])
        return _document(found[0]) if found else None

    def find(
        self, name: str | None = None, *, tenant_id: str | AllTenants | None = ALL_TENANTS
    ) -> list[StoredDocument]:
        """
        Return the documents by name: all, or those of one *name* or tenant.

        None as the tenant means those that belong to no tenant.
        """
        where = [] if name is None else [Where("name", "eq", name)]
        if not isinstance(tenant_id, AllTenants):
            where.append(Where("tenant_id", "eq", tenant_id))
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(DOCUMENT, where, order_by=("name", "id"))
        return [_document(row) for row in found]

    def versions(
        self, document_id: str, *, before: int | None = None, limit: int = 50
    ) -> list[DocumentVersion]:
        """Return the versions of a document without their texts, the latest first."""
        its = [Where("document_id", "eq", document_id)]
        if before is not None:
            its.append(Where("number", "lt", before))
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(
                DOCUMENT_VERSION, its, order_by=("-number",), limit=limit, columns=_BRIEF
            )
        return [DocumentVersion(**row) for row in found]

    def version(self, document_id: str, number: int) -> DocumentVersion:
        """Return a version with its text; raises ``NOT_FOUND``."""
        with self._storage.begin(atomic=False) as rows:
            return _version(_read_version(rows, document_id, number))

    # -- changes --

    def create(
        self,
        text: str,
        *,
        format: Format = "yaml",
        tenant_id: str | None = None,
        enabled: bool = True,
        publish: bool = True,
        author: str = "",
        comment: str = "",
        transaction: Any = None,
    ) -> StoredDocument:
        """
        Save a new workflow, with *text* as its version 1.

        With a *tenant_id* it belongs to that tenant. Without *publish* it is a draft, which starts
        nothing. Raises `WorkflowError` if the text is no workflow or its name
        is taken; the error's details list each problem with its line.
        """
        if tenant_id == "":
            # Most likely a tenant that somebody failed to find, and not everybody.
            raise ConfigError("a tenant's id can't be empty", hint="None means: for all tenants")
        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")

        def insert(rows: Rows) -> StoredDocument:
            workflow = self.checked(text, format)
            self._require_free(rows, workflow.name, tenant_id, text, format)
            row: Row = {
                "id": new_id(), "key": document_key(workflow.name, tenant_id),
                "name": workflow.name, "tenant_id": tenant_id, "enabled": int(enabled),
                "version": 1 if publish else None, "latest": 1, "created_at": Now(),
                "updated_at": Now(),
            }  # fmt: skip
            rows.insert(DOCUMENT, [row])
            about = _about(author, comment, publish=publish)
            _write_version(rows, row["id"], 1, workflow, text, format, about)
            return _current(rows, row["id"])

        return self._change(insert, transaction)

    def save(
        self,
        document_id: str,
        text: str,
        *,
        format: Format = "yaml",
        publish: bool = True,
        author: str = "",
        comment: str = "",
        based_on: int | None = None,
        transaction: Any = None,
    ) -> DocumentVersion | None:
        """
        Save a new version, and publish it or leave it a draft; return None if nothing changes.

        *based_on* is the version that the editor saw: if there is a newer one, nothing is saved and
        ``ABORTED`` is raised. Raises `WorkflowError` as `create` does, and if the text gives the
        workflow another name: executions are found by it.
        """

        def revise(rows: Rows) -> DocumentVersion | None:
            current = _current(rows, document_id)
            _require_latest(current, based_on)
            former = _read_version(rows, document_id, current.latest)
            about = _about(author, comment, publish=publish)
            if (former["source"], former["format"]) != (text, format):
                return self._revise(rows, current, text, format, about)
            if publish and current.is_draft:
                return self._publish(rows, current, former, author)
            return None

        return self._change(revise, transaction)

    def publish(
        self, document_id: str, number: int, *, author: str = "", transaction: Any = None
    ) -> DocumentVersion | None:
        """
        Let version *number*, the latest one, count from now on; return None if it does already.

        Raises ``ABORTED`` if there is a newer one, and `WorkflowError` if the text is wrong today.
        For a former version there is `restore`.
        """

        def turn(rows: Rows) -> DocumentVersion | None:
            current = _current(rows, document_id)
            row = _read_version(rows, document_id, number, current.name)
            _require_latest(current, number)
            return self._publish(rows, current, row, author) if current.is_draft else None

        return self._change(turn, transaction)

    def restore(
        self,
        document_id: str,
        number: int,
        *,
        author: str = "",
        comment: str = "",
        based_on: int | None = None,
        transaction: Any = None,
    ) -> DocumentVersion | None:
        """
        Publish a new version with the text of version *number*; None if that text counts already.

        *based_on* is as for `save`. Raises ``NOT_FOUND``, and `WorkflowError` if the text is wrong
        today.
        """

        def revise(rows: Rows) -> DocumentVersion | None:
            current = _current(rows, document_id)
            row = _read_version(rows, document_id, number, current.name)
            _require_latest(current, based_on)
            wanted = (row["source"], row["format"])
            former = _read_version(rows, document_id, current.latest)
            if not current.is_draft and (former["source"], former["format"]) == wanted:
                return None
            about = {**_about(author, comment, publish=True), "restored_from": number}
            return self._revise(rows, current, *wanted, about)

        return self._change(revise, transaction)

    def switch(self, document_id: str, *, enabled: bool, transaction: Any = None) -> bool:
        """
        Turn a workflow on or off; return False if it was so already.

        A workflow that is off starts nothing; running executions go on. Its schedules count from
        when it is turned on: the times that passed meanwhile are not made up for.
        """

        def turn(rows: Rows) -> bool:
            current = _current(rows, document_id)
            if current.enabled == enabled:
                return False
            if enabled and current.version is not None:
                row = _read_version(rows, document_id, current.version)
                workflow = Workflow.from_dict(row["definition"])
                forget_schedules(rows, workflow, current.tenant_id)
            changes = {"enabled": int(enabled), "updated_at": Now()}
            rows.update(DOCUMENT, [Where("id", "eq", document_id)], changes)
            return True

        return self._change(turn, transaction)

    def _change(self, work: Callable[[Rows], T], transaction: Any) -> T:
        def stamped(rows: Rows) -> T:
            # Written before anything is read: SQLite then waits for other writers, here and not
            # later.
            token, its = runtime.uuid4().hex, [Where("id", "eq", _STAMP)]
            if not rows.update(DOCUMENT_STAMP, its, {"token": token}):
                rows.ensure(DOCUMENT_STAMP, [{"id": _STAMP, "token": ""}])
                rows.update(DOCUMENT_STAMP, its, {"token": token})
            return work(rows)

        try:
            return write(self._storage, transaction, stamped)
        finally:
            self._catalogue.look_again()

    def _require_free(
        self, rows: Rows, name: str, tenant_id: str | None, text: str, format: str
    ) -> None:
        owners = rows.select(DOCUMENT, [Where("name", "eq", name)], columns=("tenant_id",))
        if any(workflow.name == name for workflow in self._catalogue.added()):
            problem = "a workflow from a file has this name already"
        elif any(
            None in (tenant_id, row["tenant_id"]) or tenant_id == row["tenant_id"] for row in owners
        ):
            problem = "another workflow has this name already"
        else:
            return
        raise _name_error(text, format, problem, "give this one another name")

    def _revise(
        self, rows: Rows, current: StoredDocument, text: str, format: str, about: Row
    ) -> DocumentVersion:
        workflow = self.checked(text, format)
        if workflow.name != current.name:
            hint = f"write {current.name}, or make another workflow"
            raise _name_error(text, format, "the name of a workflow stays as it is", hint)
        number = current.latest + 1
        changes: Row = {"latest": number, "updated_at": Now()}
        if about["published_at"] is not None:
            changes["version"] = number
        rows.update(DOCUMENT, [Where("id", "eq", current.id)], changes)
        _write_version(rows, current.id, number, workflow, text, format, about)
        return _version(_read_version(rows, current.id, number))

    def _publish(
        self, rows: Rows, current: StoredDocument, row: Row, author: str
    ) -> DocumentVersion:
        self.checked(row["source"], row["format"])
        changes = {"version": row["number"], "updated_at": Now()}
        rows.update(DOCUMENT, [Where("id", "eq", current.id)], changes)
        published = {"published_at": Now(), "published_by": storable(author, 200)}
        rows.update(DOCUMENT_VERSION, [Where("id", "eq", row["id"])], published)
        return _version(_read_version(rows, current.id, row["number"]))

    # -- checks --

    def checked(self, text: str, format: str) -> Workflow:
        """Read the workflow in *text*; raises `WorkflowError` with every problem of it."""
        known = next((each for each in FORMATS if each == format), None)
        if known is None:
            raise WorkflowError(f"the format must be one of {', '.join(FORMATS)}")
        leaks = list(self._leaks(text))
        if leaks:
            raise _error(leaks)
        try:
            workflow = loads(text, known, source="", check=self._catalogue.check)
            encode_json([text, workflow.to_dict()], "the workflow", 8 * LARGEST)
        except (ConfigError, PayloadError) as error:  # no PyYAML is installed, or NUL is in a text
            raise WorkflowError(error.message, hint=error.hint) from None
        return workflow

    def _leaks(self, text: str) -> Iterator[Diagnostic]:
        """Find the lines with the value of a secret, which would be stored and shown to people."""
        redact = self._redactor.redact
        if redact(text) == text:
            return
        hint = "write $secret:KEY in its place"
        lines = [number for number, line in enumerate(text.splitlines(), 1) if redact(line) != line]
        for number in lines:
            yield Diagnostic("it holds the value of a secret", number, hint=hint)
        if not lines:
            yield Diagnostic("the text holds the value of a secret, over several lines", hint=hint)


def diagnostics(error: WorkflowError) -> list[Diagnostic]:
    """Return every problem in *error*, for a page."""
    problems: list[dict[str, Any]] = error.details.get("problems", [])
    if not problems:
        return [Diagnostic(error.message, hint=error.hint)]
    return [
        Diagnostic(one["message"], one["line"], one["field"] or "", one["hint"]) for one in problems
    ]


def document_key(name: str, tenant_id: str | None) -> str:
    """Return the unique key of a document."""
    return hashlib.sha256(json.dumps([tenant_id, name]).encode()).hexdigest()


def _current(rows: Rows, document_id: str) -> StoredDocument:
    found = rows.select(DOCUMENT, [Where("id", "eq", document_id)])
    if not found:
        raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no workflow {document_id!r}")
    return _document(found[0])


def _read_version(rows: Rows, document_id: str, number: int, name: str = "") -> Row:
    its = [Where("document_id", "eq", document_id), Where("number", "eq", number)]
    found = rows.select(DOCUMENT_VERSION, its)
    if not found:
        text = f"workflow {name or document_id!r} has no version {number}"
        raise AutomateError(ErrorCodes.NOT_FOUND, text)
    return found[0]


def _require_latest(current: StoredDocument, number: int | None) -> None:
    if number is not None and number != current.latest:
        problem = f"somebody has saved version {current.latest} meanwhile"
        hint = "look at what it changes, and make your change in it"
        raise AutomateError(ErrorCodes.ABORTED, problem, hint=hint)


def _about(author: str, comment: str, *, publish: bool) -> Row:
    author = storable(author, 200)
    return {
        "author": author, "comment": storable(comment, 500), "restored_from": None,
        "published_at": Now() if publish else None, "published_by": author if publish else "",
    }  # fmt: skip


def _write_version(
    rows: Rows,
    document_id: str,
    number: int,
    workflow: Workflow,
    text: str,
    format: str,
    about: Row,
) -> None:
    row: Row = {
        "id": new_id(), "document_id": document_id, "number": number, "format": format,
        "source": text, "definition": workflow.to_dict(), "digest": workflow.hash(),
        "created_at": Now(), **about,
    }  # fmt: skip
    rows.insert(DOCUMENT_VERSION, [row])


def _document(row: Row) -> StoredDocument:
    return StoredDocument(**{**row, "enabled": bool(row["enabled"])})


def _version(row: Row) -> DocumentVersion:
    return DocumentVersion(**{name: row[name] for name in (*_BRIEF, "source")})


def _error(problems: Iterable[Diagnostic]) -> WorkflowError:
    """Make the error with *problems*, in the form of the loader."""
    found = list(problems)
    details = [{"source": "", **asdict(each)} for each in found]
    return WorkflowError("\n".join(map(str, found)), details={"problems": details})


def _name_error(text: str, format: str, message: str, hint: str) -> WorkflowError:
    """Make an error about the workflow's name, with the line on which it stands."""
    document = read_json(text) if format == "json" else read_yaml(text)[0]
    return _error([Diagnostic(message, document.line(("name",)), "name", hint)])
