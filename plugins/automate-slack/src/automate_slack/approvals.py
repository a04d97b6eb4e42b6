"""Approvals in Slack: asking for a decision, and passing a click on to the waiting step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import PluginContext, current_call
from automate_slack.buttons import ApprovalButtons, AskedPlace, Click, escaped
from automate_slack.messages import ClickOutcome, PostedMessage
from automate_slack.people import People
from automate_slack.posts import Posts, repeated
from automate_slack.web_api import WebApi

if TYPE_CHECKING:
    from automate_kernel.workflows.steer.approvals import Approvals, PendingApproval

_GONE = "This question waits no longer."
_DONE = {"approve": "approved", "reject": "rejected"}


class SlackApprovals:
    """Asks for decisions with buttons, and answers the approvals of the kernel with the clicks."""

    def __init__(self, api: WebApi, posts: Posts, people: People, ctx: PluginContext) -> None:
        self._api, self._posts, self._people, self._ctx = api, posts, people, ctx

    async def ask(
        self,
        buttons: ApprovalButtons,
        channel: str,
        execution_id: str | None,
        step_id: str | None,
        position: int,
    ) -> PostedMessage:
        """Post the question of a waiting approval, with its buttons."""
        call = current_call()
        tenant = call.tenant_id if call is not None else None
        execution_id = execution_id or (call.execution_id if call is not None else None)
        step_id = step_id or (call.step_id if call is not None else None)
        waiting = None
        if execution_id is not None and step_id is not None:
            waiting = await self._waiting(execution_id, step_id, position, tenant)
        if waiting is None or execution_id is None or step_id is None:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                "no step waits for this approval",
                hint="make it the approval's notify; within for_each, with"
                ' position: "{{ approval.position }}"',
            )
        needed = [each.name for each in waiting.form if each.required and each.default is None]
        if needed:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"buttons can't fill in the form of step {step_id!r}: {', '.join(needed)}",
                hint="give the fields a default, or post {{ approval.link }} instead",
            )
        place = AskedPlace(
            execution=execution_id, step=step_id, position=position, asked=waiting.asked,
            tenant=waiting.tenant_id,
        )  # fmt: skip
        return await self._posts.post(channel, thread_ts=None, **buttons.message(place, waiting))

    async def answer(
        self,
        buttons: ApprovalButtons,
        proof: str,
        comment: str,
        question: Sequence[Mapping[str, Any]],
    ) -> ClickOutcome:
        """Decide as the click says, and show in the message who has decided."""
        click = buttons.read_click(proof, comment)
        answer = await self._decided(click, comment)
        if answer.outcome == "refused":
            await self._tell("chat.postEphemeral", click, user=click.user, text=answer.message)
            return answer
        message = buttons.closed(question, answer.message)
        await self._tell("chat.update", click, ts=click.ts, **message)
        return answer

    async def _decided(self, click: Click, comment: str) -> ClickOutcome:
        place, call = click.place, current_call()
        # The host says by the webhook's address whose Slack this is.
        if place.tenant != (call.tenant_id if call is not None else None):
            raise AutomateError(
                ErrorCodes.NOT_FOUND, "no step waits for this approval: it is another tenant's"
            )
        where = (place.execution, place.step, place.position)
        waiting = await self._waiting(*where, place.tenant)
        if waiting is not None and waiting.asked != place.asked:
            return ClickOutcome(outcome="closed", message=_GONE)
        by: str | None = None
        try:
            by = await self._people.name_of(click.user)
            roles = await self._people.roles_of(click.user, waiting.by if waiting else ())
            decide = getattr(self._approvals(), click.decision)
            await to_thread.run_sync(
                partial(decide, *where, by=by, roles=roles, comment=comment, tenant_id=place.tenant)
            )
        except AutomateError as error:
            made = {"by": by, "approved": click.decision == "approve"}
            # By this click, it may well be: the worker died before it could show that.
            if not (repeated() and error.details == made):
                return _refused(error)
        words = _words(click.decision == "approve", f"<@{click.user}>", comment)
        return ClickOutcome.model_validate(
            {"outcome": _DONE[click.decision], "by": by, "message": words}
        )

    async def _tell(self, method: str, click: Click, **fields: Any) -> None:
        try:
            await self._api.call(method, channel=click.channel, **fields)
        except AutomateError as error:
            # The message, or the person's place in the channel, is gone; the decision stands.
            if error.retryable or error.code is ErrorCodes.UNAUTHENTICATED:
                raise
            self._ctx.logger.warning("the answer to a click can't be shown: %s", error)

    async def _waiting(
        self, execution_id: str, step_id: str, position: int, tenant_id: str | None
    ) -> PendingApproval | None:
        find = partial(self._approvals().get, execution_id, step_id, position, tenant_id=tenant_id)
        waiting = await to_thread.run_sync(find)
        return None if waiting is None or waiting.tenant_id != tenant_id else waiting

    def _approvals(self) -> Approvals:
        approvals: Approvals | None = self._ctx.approvals
        if approvals is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "there are no approvals here",
                hint="use the connector through a kernel",
            )
        return approvals


def _refused(error: AutomateError) -> ClickOutcome:
    """Return the answer for a decision that was not made; raises what may be tried again."""
    if error.code is ErrorCodes.PERMISSION_DENIED:
        return ClickOutcome(outcome="refused", message=escaped(error.message))
    if error.code is ErrorCodes.NOT_FOUND:
        return ClickOutcome(outcome="closed", message=_GONE)
    if error.code is not ErrorCodes.FAILED_PRECONDITION:
        raise error
    by, approved = error.details.get("by"), error.details.get("approved")
    if not isinstance(by, str) or not isinstance(approved, bool):
        return ClickOutcome(outcome="closed", message=_GONE)
    return ClickOutcome(outcome="closed", by=by, message=_words(approved, escaped(by), ""))


def _words(approved: bool, by: str, comment: str) -> str:
    mark = ":white_check_mark: *Approved*" if approved else ":x: *Rejected*"
    return f"{mark} by {by}" + (f": {escaped(comment)}" if comment else "")
