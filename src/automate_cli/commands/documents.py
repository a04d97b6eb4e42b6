"""``automate workflow ls`` and ``publish``: workflows of files, and those that people edit."""

from __future__ import annotations

from dataclasses import asdict
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context
from automate_cli.commands import workflow as definitions
from automate_cli.commands.events import is_path
from automate_cli.inputs import argument, flag, option
from automate_cli.output import Columns, ago, time_of
from automate_kernel.base.errors import ConfigError, WorkflowError
from automate_kernel.workflows.definition.document import LARGEST

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.steer.documents import DocumentVersion, Format, StoredDocument

app: Commands = definitions.app
hosted: Commands = definitions.hosted
_DOCUMENTS: Columns = {
    "NAME": "name",
    "TENANT": lambda each: each.tenant_id or "",
    "PUBLISHED": lambda each: each.version or "none",
    "LATEST": lambda each: f"{each.latest}{' (draft)' if each.is_draft else ''}",
    "STATE": lambda each: "on" if each.enabled else "off",
    "CHANGED": lambda each: ago(each.updated_at),
}
_ROWS = 20
_WHOSE = option(None, "The tenant it belongs to; without it, it is everybody's.")


@hosted.called(
    "automate workflow ls --stored",
    "automate workflow ls order-notify --stored",
    "automate workflow ls --paused",
)
@app.called(
    "automate workflow ls",
    "automate workflow ls --paused",
    "automate workflow ls --stored                # those that are edited in the database",
    "automate workflow ls order-notify --stored   # its versions",
)
def ls(
    context: Context,
    name: str | None = argument("With --stored: the workflow whose versions are listed.", None),
    paused: bool = flag("--paused", "Those that are paused, with the reasons."),
    stored: bool = flag(
        "--stored", "Those that are edited in the database; of one, its versions, latest first."
    ),
    tenant: str | None = option(None, "With --stored: the tenant that the workflow belongs to."),
    limit: int | None = option(
        None, "With --stored: the rows, at most; 20.", "--limit", "-n", min=1
    ),
) -> None:
    """List the workflows that are configured."""
    if stored:
        inputs.alone("--stored", paused=paused)
        _list_stored(context, name, tenant, limit or _ROWS)
        return
    chosen = "--paused" if paused else "workflow ls without --stored"
    inputs.alone(chosen, tenant=tenant, limit=limit)
    if name is not None:
        raise ConfigError(
            f"{chosen} takes no name",
            hint="--stored lists its versions, workflow show draws it",
        )
    (_list_paused if paused else _list_configured)(context)


def _list_configured(context: Context) -> None:
    from automate_kernel.workflows.definition.graph import describe_trigger

    kernel = context.session.in_memory()
    columns: Columns = {
        "NAME": "name",
        "STARTS ON": lambda each: ", ".join(map(describe_trigger, each.triggers)),
        "STEPS": lambda each: len(each.steps) or getattr(each, "code", 0),
        "DESCRIPTION": lambda each: each.description or each.title or "",
    }
    found = sorted(kernel.workflows, key=lambda each: each.name)
    none = "no workflows; set workflows in automate.toml, or make the folder workflows"
    context.out.listing(found, columns, data=methodcaller("to_dict"), empty=none)


def _list_paused(context: Context) -> None:
    columns: Columns = {
        "WORKFLOW": "workflow",
        "TENANT": lambda each: each.tenant_id or "",
        "SINCE": lambda each: time_of(each.paused_at),
        "REASON": "reason",
    }
    found = context.session.plain.workflows.paused()
    context.out.listing(found, columns, "no workflow is paused", asdict)


def _list_stored(context: Context, name: str | None, tenant: str | None, limit: int) -> None:
    kernel = context.session.plain
    if name is None:
        given = {} if tenant is None else {"tenant_id": tenant}
        found = kernel.documents.find(**given)[:limit]
        context.out.listing(found, _DOCUMENTS, "no workflow is edited in the database", asdict)
        return
    document = _found(context, kernel, name, tenant)
    columns: Columns = {
        "VERSION": "number",
        "STATE": lambda each: _state(document, each),
        "BY": "author",
        "WHEN": lambda each: ago(each.created_at),
        "COMMENT": "comment",
    }
    listed = kernel.documents.versions(document.id, limit=limit)
    context.out.listing(listed, columns, "", lambda each: _data(document, each))


@hosted.called(
    "automate workflow publish workflows/order-notify.yaml --comment 'asks twice'",
    "automate workflow publish order-notify --number 3",
)
@app.called(
    "automate workflow publish workflows/order-notify.yaml --comment 'asks twice'",
    "automate workflow publish workflows/order-notify.yaml --draft",
    "automate workflow publish order-notify             # its draft",
    "automate workflow publish order-notify --number 3  # as it was then",
)
def publish(
    context: Context,
    workflow: str = argument("A file, whose text becomes a version; or a name, for its draft."),
    number: int | None = option(
        None, "Go back to the text of this version, as a new version.", min=1
    ),
    draft: bool = flag("--draft", "Save the file as a draft, which starts nothing yet."),
    comment: str = option("", "What changes, for the others who edit it."),
    tenant: str | None = _WHOSE,
) -> None:
    """
    Publish a version of a workflow in the database: new executions run it.

    Those that run go on with the version they began with. Nothing is saved if the text is wrong;
    each problem is shown with its line. Every worker on the database takes it up by itself.
    """
    kernel, out = context.session.whole, context.out
    if is_path(workflow):
        inputs.alone("a file", number=number)
        document, saved = _from_file(
            context, kernel, Path(workflow), tenant, comment=comment, publish=not draft
        )
    else:
        inputs.alone("a workflow's name", draft=draft)
        document, saved = _by_name(context, kernel, workflow, tenant, number, comment)
    now = document.latest if saved is None else saved.number
    state = "saved as a draft" if document.is_draft else "published"
    if saved is None:
        state = f"{state} already, nothing changes"
    out.data({**_brief(document), "number": now, "changed": saved is not None})
    out.line(f"{document.name}: version {now} is {state}")
    if not kernel.documents.running:
        out.note("this application runs no workflows of the database: see StoredWorkflows")
    elif not document.enabled and not document.is_draft:
        out.note(f"{document.name} is turned off: turn it on for it to start")


def _from_file(
    context: Context, kernel: Kernel, path: Path, tenant: str | None, *, comment: str, publish: bool
) -> tuple[StoredDocument, DocumentVersion | None]:
    kind: Format = "json" if path.suffix.lower() == ".json" else "yaml"
    if path.suffix.lower() == ".py":
        hint = "write it in YAML or JSON, or deploy it with the application"
        raise ConfigError("a workflow in Python can't be edited in the database", hint=hint)
    text, documents = _text(path), kernel.documents
    about: dict[str, Any] = {"author": context.who, "comment": comment, "publish": publish}
    try:
        name = documents.checked(text, kind).name
    except WorkflowError as error:
        from automate_kernel.workflows.steer.documents import diagnostics

        problems = "".join(f"\n  {each}" for each in diagnostics(error))
        raise WorkflowError(f"{path} can't be published:{problems}") from None
    former = documents.find(name, tenant_id=tenant)
    with kernel.storage.begin() as rows:
        if former:
            saved = documents.save(
                former[0].id, text, format=kind, transaction=rows.native, **about
            )
            document_id = former[0].id
        else:
            made = documents.create(
                text, format=kind, tenant_id=tenant, transaction=rows.native, **about
            )
            document_id, saved = made.id, None
        action = "publish" if publish else "save"
        changed = bool(saved or not former)
        context.audited(
            kernel, action, "workflow", document_id, name, tenant, changed=changed,
            transaction=rows.native,
        )  # fmt: skip
    return _now(kernel, document_id, None if former and saved is None else -1)


def _by_name(
    context: Context, kernel: Kernel, name: str, tenant: str | None, number: int | None,
    comment: str,
) -> tuple[StoredDocument, DocumentVersion | None]:  # fmt: skip
    documents, document = kernel.documents, _found(context, kernel, name, tenant)
    with kernel.storage.begin() as rows:
        given: dict[str, Any] = {"author": context.who, "transaction": rows.native}
        if number in (None, document.latest):
            saved = documents.publish(document.id, document.latest, **given)
        else:
            saved = documents.restore(
                document.id, number, comment=comment, based_on=document.latest, **given
            )
        context.audited(
            kernel, "publish", "workflow", document.id, name, tenant, changed=saved is not None,
            transaction=rows.native,
        )  # fmt: skip
    return _now(kernel, document.id, None if saved is None else saved.number)


def _now(
    kernel: Kernel, document_id: str, number: int | None
) -> tuple[StoredDocument, DocumentVersion | None]:
    """Return the document as it is now, and its version *number*, -1 for the latest."""
    document = kernel.documents.get(document_id)
    assert document is not None  # noqa: S101 - it was changed just now, and none is deleted
    if number is None:
        return document, None
    wanted = document.latest if number < 0 else number
    return document, kernel.documents.version(document_id, wanted)


def _found(context: Context, kernel: Kernel, name: str, tenant: str | None) -> StoredDocument:
    found = kernel.documents.find(name, tenant_id=tenant)
    if not found:
        whose = f" of tenant {tenant}" if tenant else ""
        raise context.missing(f"workflow {name!r}{whose} in the database", "workflow ls --stored")
    return found[0]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            read = file.read(LARGEST + 1)
        return read.decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is no text in UTF-8") from None


def _state(document: StoredDocument, version: DocumentVersion) -> str:
    if version.number == document.version:
        return "published" if document.enabled else "published, off"
    return "draft" if document.is_draft and version.number == document.latest else ""


def _data(document: StoredDocument, version: DocumentVersion) -> dict[str, Any]:
    data = asdict(version)
    del data["source"]  # which a list doesn't have
    return {**data, "state": _state(document, version)}


def _brief(document: StoredDocument) -> dict[str, Any]:
    return {name: value for name, value in asdict(document).items() if name != "key"}
