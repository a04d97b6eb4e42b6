"""``automate approvals``: look at the steps that wait for a person, and decide on them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from automate_cli.command import Commands, Context, DataCommand
from automate_cli.command_input import json_input
from automate_cli.inputs import LIMIT, TENANT, argument, flag, option
from automate_cli.output import Columns, ago, as_json, attributes, rows_of, time_of
from automate_cli.records import brief, step_name
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.secrets.redaction import redact_shown

if TYPE_CHECKING:
    from automate_kernel.workflows.definition.approval import FormField
    from automate_kernel.workflows.steer.approvals import Decision, PendingApproval

app: Commands = Commands("approvals", "Look at the steps that wait for a person, and decide.")

_EXECUTION = argument("The execution's id.", metavar="EXECUTION")
_STEP = argument("The step's id.", metavar="STEP")
_POSITION = option(-1, "Which element of for_each it is, from 0.", min=-1)
_BY = option(..., "Who decides: a name.")
_ROLES = option(None, "A role of this person; may be repeated.", "--role", metavar="ROLE")
_COMMENT = option("", "What to say about it.")
_FORM = option(None, "The form, as a JSON object.", metavar="JSON")
_DECISIONS = ("approve", "reject")


_TABLE: Columns = {
    "EXECUTION": "execution_id",
    "STEP": step_name,
    "WORKFLOW": "workflow",
    "TITLE": lambda each: brief(redact_shown(each.title), 50),
    "FOR": lambda each: brief(", ".join(each.by) or "anybody", 30),
    "ASKED": lambda each: ago(each.created_at),
    "UNTIL": lambda each: "-" if each.expires_at is None else time_of(each.expires_at),
}


def _data(each: PendingApproval) -> dict[str, Any]:
    names = ("execution_id", "step_id", "position", "workflow", "tenant_id")
    return {
        **attributes(each, *names, "created_at", "expires_at", "decided_by"),
        "title": redact_shown(each.title),
        "description": redact_shown(each.description),
        "by": list(each.by),
        "form": each.form_schema(),
    }


@app.command("list", cls=DataCommand, hidden=True)
@app.called("automate approvals ls", "automate approvals ls --by ann --role managers", name="ls")
def ls(
    context: Context,
    by: str | None = option(None, "Only those that this person may decide."),
    roles: list[str] | None = _ROLES,
    workflow: str | None = option(None, "Only of this workflow."),
    tenant: str | None = TENANT,
    limit: int = LIMIT,
) -> None:
    """List the approvals that are open, the oldest first."""
    approvals = context.session.plain.approvals
    found: list[PendingApproval] = []
    after = ""
    while len(found) < limit:
        page = approvals.pending(
            by=by, roles=roles or (), workflow=workflow, tenant_id=tenant, after=after,
            limit=limit - len(found),
        )  # fmt: skip
        found += page.approvals
        after = page.after
        if not after:
            break
    context.out.data([_data(each) for each in found])
    context.out.table(_TABLE, rows_of(found, _TABLE), empty="nothing waits for a person")


@app.called(
    "automate approvals show EXECUTION STEP",
    "automate approvals show EXECUTION STEP --json",
    "automate approvals show EXECUTION STEP --link --by ann",
    "automate approvals show EXECUTION STEP --link --by role:managers --decision reject",
)
def show(
    context: Context,
    execution_id: str = _EXECUTION,
    step: str = _STEP,
    position: int = _POSITION,
    tenant: str | None = TENANT,
    link: bool = flag("--link", "The link by which somebody decides without an account, once."),
    by: str | None = option(None, "With --link: who decides, a name or an entry of the by list."),
    roles: list[str] | None = _ROLES,
    decision: str | None = option(None, "With --link, for this alone: approve or reject."),
    base_url: str | None = option(
        None, "With --link: the address in front of /approvals; else public_url."
    ),
) -> None:
    """
    Show what a step asks: its title, who may decide, and its form.

    The link of --link needs the setting signing_keys. automate serve answers it, or your own
    application.
    """
    if link:
        about = {"position": position, "roles": roles or (), "tenant_id": tenant}
        _show_link(context, execution_id, step, by, decision, {**about, "base_url": base_url})
        return
    if by or roles or decision or base_url:
        raise ConfigError(
            "--by, --role, --decision and --base-url are for --link", hint="add --link"
        )
    found = context.session.plain.approvals.get(execution_id, step, position, tenant_id=tenant)
    if found is None:
        raise context.missing(f"approval in step {step!r} of this execution", "approvals ls")
    out, data = context.out, _data(found)
    out.data(data)
    if out.json:
        return
    fields = [
        f"{each.name} ({each.type}{', required' if each.required else ''})" for each in found.form
    ]
    out.fields(
        (
            ("title", data["title"]),
            ("description", data["description"]),
            ("workflow", found.workflow),
            ("execution", found.execution_id),
            ("step", step_name(found)),
            ("tenant", found.tenant_id),
            ("for", ", ".join(found.by) or "anybody"),
            ("form", ", ".join(fields) or None),
            ("asked", time_of(found.created_at)),
            ("until", None if found.expires_at is None else time_of(found.expires_at)),
            ("decided by", found.decided_by),
        )
    )


def _show_link(
    context: Context,
    execution_id: str,
    step: str,
    by: str | None,
    decision: str | None,
    about: dict[str, Any],
) -> None:
    words: dict[str | None, Decision | None] = {
        None: None, "approve": "approve", "reject": "reject",
    }  # fmt: skip
    if by is None:
        raise ConfigError("whose link?", hint="add --by ann, or --by role:managers")
    if decision not in words:
        raise ConfigError("--decision is approve or reject")
    approvals = context.session.look().signing.approvals
    made = approvals.link(execution_id, step, by=by, decision=words[decision], **about)
    context.out.data({"link": made})
    context.out.line(made)


@app.called(
    "automate approvals decide EXECUTION STEP approve --by ann",
    """automate approvals decide EXECUTION STEP approve --by ann --form '{"amount": 12}'""",
    "automate approvals decide EXECUTION STEP reject --by ann --comment 'too much'",
)
def decide(
    context: Context,
    execution_id: str = _EXECUTION,
    step: str = _STEP,
    decision: str = argument("approve or reject.", metavar="approve|reject"),
    position: int = _POSITION,
    by: str = _BY,
    roles: list[str] | None = _ROLES,
    comment: str = _COMMENT,
    form: str | None = _FORM,
    tenant: str | None = TENANT,
) -> None:
    """
    Approve what a step waits for, or reject it.

    It goes on as soon as a worker takes it up. Its workflow says what a rejection means.
    """
    if decision not in _DECISIONS:
        raise ConfigError(f"{decision!r} is no decision", hint="write approve or reject")
    approvals = context.session.plain.approvals
    try:
        given = None if form is None else json_input(form, "--form")
        if form is not None and not isinstance(given, dict):
            raise ConfigError("--form is no JSON object")
        output = getattr(approvals, decision)(
            execution_id, step, position, by=by, roles=roles or (), comment=comment, form=given,
            tenant_id=tenant,
        )  # fmt: skip
    except AutomateError as error:
        wrong: dict[str, str] = error.details.get("fields", {})
        asked = approvals.get(execution_id, step, position, tenant_id=tenant)
        if asked is not None and (wrong or isinstance(error, ConfigError)):
            error.hint = _how_to_fill(asked.form, wrong)
        raise
    context.out.data(output)
    done = "approved" if output["approved"] else "rejected"
    context.out.line(f"{step} {done} by {by}")
    if output["form"]:
        context.out.line(as_json(redact_shown(output["form"])))


def _how_to_fill(form: Sequence[FormField], wrong: Collection[str]) -> str:
    """Return the option that would be right for the *wrong* fields, or for all that are needed."""
    if not form:
        return "the step has no form: leave --form out"
    needed = [each for each in form if each.required]
    fields = [each for each in form if each.name in wrong] or needed or form
    values = {each.name: _good_value(each) for each in fields}
    return f"for example --form {shlex.quote(json.dumps(values, ensure_ascii=False))}"


def _good_value(field: FormField) -> Any:
    if field.default is not None:
        return field.default
    number = next((each for each in (field.minimum, field.maximum) if each is not None), 1)
    whole = floor(number) if field.minimum is None else ceil(number)
    return {
        "text": "text"[: field.max_length],
        "number": number,
        "integer": whole,
        "boolean": True,
        "date": "2026-01-31",
        "choice": next(iter(field.choices), None),
    }[field.type]
