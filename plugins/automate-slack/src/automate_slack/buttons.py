"""The message with the buttons of an approval, and the signed texts that its clicks carry."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.secrets.signing import LEAST_KEY, Signer
from automate_slack.forms import value_at

if TYPE_CHECKING:
    from automate_kernel.workflows.steer.approvals import PendingApproval

SIGNING_SECRET = "SLACK_SIGNING_SECRET"  # noqa: S105 - its key
_OWN = "automate_"
_DECISIONS: Mapping[str, Literal["approve", "reject"]] = {
    f"{_OWN}approve": "approve",
    f"{_OWN}reject": "reject",
}
_COMMENT = f"{_OWN}comment"
_MOST_COMMENT = 1_000
# Slack takes 3,000 characters in a section, and escaping makes a text longer.
_MOST_SHOWN = 2_900


class AskedPlace(BaseModel):
    """One asking of one step: where a decision goes."""

    execution: str
    step: str
    position: int = -1
    asked: str
    tenant: str | None = None


class Click(BaseModel):
    """A person's click on a button, as Slack's signature has proved it."""

    place: AskedPlace
    decision: Literal["approve", "reject"]
    user: str
    channel: str
    ts: str
    """The message with the button."""
    comment_hash: str


class ApprovalButtons:
    """
    Makes the buttons of approvals, and reads the clicks on them.

    *signing_secret* is the Slack app's: a button that was not made here, and a click that did not
    come through a verified webhook, count nothing.
    """

    def __init__(self, signing_secret: str) -> None:
        if len(signing_secret) < LEAST_KEY:
            raise ConfigError(
                f"the secret {SIGNING_SECRET!r} is too short to be a signing secret of Slack",
                hint="copy Signing Secret from the app's Basic Information; the verification token"
                " is something else",
            )
        self._buttons = Signer([signing_secret], "automate.slack.button")
        self._clicks = Signer([signing_secret], "automate.slack.click")

    def message(self, place: AskedPlace, approval: PendingApproval) -> dict[str, Any]:
        """Return the text and the blocks of the message that asks."""
        value = self._buttons.sign(place.model_dump())
        text = _cut(f"*{escaped(approval.title)}*")
        blocks = [_section("question", text)]
        if approval.description:
            blocks.append(_section("facts", _cut(escaped(approval.description))))
        if approval.expires_at is not None:
            # Slack shows it in each reader's own time zone.
            until = f"<!date^{int(approval.expires_at.timestamp())}^Until {{date_short_pretty}} "
            ends = f"{until}{{time}}|Until {approval.expires_at.isoformat()}>"
            blocks.append(_context("until", ends))
        blocks.append({
            "type": "input",
            "block_id": _COMMENT,
            "optional": True,
            "label": {"type": "plain_text", "text": "Comment"},
            "element": {
                "type": "plain_text_input", "action_id": _COMMENT, "max_length": _MOST_COMMENT,
            },
        })  # fmt: skip
        blocks.append({
            "type": "actions",
            "block_id": f"{_OWN}buttons",
            "elements": [
                _button("approve", "Approve", "primary", value),
                _button("reject", "Reject", "danger", value),
            ],
        })  # fmt: skip
        return {"text": escaped(approval.title), "blocks": blocks}

    def click(self, interaction: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Return the input of ``answer_approval`` for a verified *interaction*.

        It is None for an interaction that is no click on one of these buttons.
        """
        action = value_at(interaction, "actions", 0)
        decision = _DECISIONS.get(str(value_at(action, "action_id")))
        place = self._buttons.read(value_at(action, "value"))
        if interaction.get("type") != "block_actions" or decision is None or place is None:
            return None
        comment = value_at(interaction, "state", "values", _COMMENT, _COMMENT, "value")
        comment = comment if isinstance(comment, str) else ""
        blocks = value_at(interaction, "message", "blocks")
        click = Click(
            place=AskedPlace.model_validate(place),
            decision=decision,
            user=str(value_at(interaction, "user", "id")),
            channel=str(value_at(interaction, "container", "channel_id")),
            ts=str(value_at(interaction, "container", "message_ts")),
            comment_hash=_hash(comment),
        )
        return {
            "proof": self._clicks.sign(click.model_dump()),
            "comment": comment,
            "question": _kept(blocks if isinstance(blocks, list) else []),
        }

    def read_click(self, proof: str, comment: str) -> Click:
        """Return the click that *proof* shows; raises ``PERMISSION_DENIED`` if it shows none."""
        found = self._clicks.read(proof)
        click = None if found is None else Click.model_validate(found)
        if click is None or not hmac.compare_digest(click.comment_hash, _hash(comment)):
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                "this is no click that Slack has signed",
                hint="take event.payload.approval of the webhook slack.interaction as it is",
            )
        return click

    def closed(self, question: Sequence[Mapping[str, Any]], words: str) -> dict[str, Any]:
        """Return the text and the blocks of the message once it is decided."""
        return {"text": words, "blocks": [*_kept(question), _section("decision", _cut(words))]}


def escaped(text: str) -> str:
    """Return *text* as Slack shows it: nobody is called by ``<!channel>`` in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _kept(blocks: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the blocks of the question, without those that take an answer."""
    wanted = (f"{_OWN}question", f"{_OWN}facts")
    return [dict(each) for each in blocks if value_at(each, "block_id") in wanted]


def _section(name: str, text: str) -> dict[str, Any]:
    block = {"type": "section", "block_id": f"{_OWN}{name}"}
    return {**block, "text": {"type": "mrkdwn", "text": text}}


def _context(name: str, text: str) -> dict[str, Any]:
    block = {"type": "context", "block_id": f"{_OWN}{name}"}
    return {**block, "elements": [{"type": "mrkdwn", "text": text}]}


def _button(decision: str, label: str, style: str, value: str) -> dict[str, Any]:
    return {
        "type": "button",
        "action_id": f"{_OWN}{decision}",
        "style": style,
        "value": value,
        "text": {"type": "plain_text", "text": label},
    }


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def _hash(comment: str) -> str:
    return hashlib.sha256(comment.encode("utf-8", "surrogatepass")).hexdigest()
