"""The Slack connector."""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.plugins.connectors import (
    Connector,
    ConnectorContext,
    FieldOption,
    TriggerSpec,
    action,
    options,
)
from automate_kernel.triggers.webhooks import Ignored, SlackSignature
from automate_kernel.triggers.webhooks.request import BodyError, parse_json
from automate_slack.approvals import SlackApprovals
from automate_slack.buttons import SIGNING_SECRET, ApprovalButtons
from automate_slack.config import SlackConfig
from automate_slack.events import EventDelivery
from automate_slack.forms import read_command, read_interaction, value_at
from automate_slack.messages import (
    Blocks,
    Channel,
    ChannelId,
    ChannelList,
    ClickOutcome,
    Conversation,
    MessageChannel,
    PostedMessage,
    SharedFile,
    SlackUser,
    Text,
    Timestamp,
)
from automate_slack.people import People
from automate_slack.posts import Posts
from automate_slack.web_api import WebApi, shaped

_MOST_CHANNELS = 10_000


class Interaction(BaseModel):
    """A click, a choice, a shortcut or a form that was sent; Slack documents its other fields."""

    model_config = ConfigDict(extra="allow")

    type: str
    user: dict[str, Any]
    approval: dict[str, Any] | None = None
    """The input of ``answer_approval``, for a click on a button of an approval; else null."""


class SlashCommand(BaseModel):
    """A slash command that a person has sent."""

    command: str
    text: str = ""
    user_id: str
    user_name: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    team_id: str | None = None
    team_domain: str | None = None
    enterprise_id: str | None = None
    api_app_id: str | None = None
    trigger_id: str | None = None


class SlackConnector(Connector):
    """Messages, files and people of a Slack workspace, its events, and approvals by buttons."""

    key = "slack"
    display_name = "Slack"

    def __init__(
        self, config: dict[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        super().__init__(config, ctx=ctx)
        settings = SlackConfig.model_validate(self.config)
        self._api = WebApi(settings, self.ctx)
        self._posts = Posts(self._api, self.ctx)
        self._people = People(self._api, settings)
        self._approvals = SlackApprovals(self._api, self._posts, self._people, self.ctx)

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        """Return `SlackConfig`."""
        return SlackConfig

    async def check(self) -> str:
        """Ask Slack whose token it is."""
        answer = await self._api.call("auth.test")
        return f"{answer.get('user')} in {answer.get('team')}"

    # -- messages ----------------------------------------------------------------------------

    @action
    async def post_message(
        self,
        channel: ChannelId,
        text: Text,
        blocks: Blocks | None = None,
        thread_ts: Timestamp | None = None,
        reply_broadcast: Annotated[
            bool, Field(description="Show a reply in the channel too.")
        ] = False,
        unfurl_links: Annotated[bool, Field(description="Show previews of links.")] = True,
    ) -> PostedMessage:
        """
        Post a message to a channel, a thread or a person.

        A step that is run again looks for the message that it has posted before.
        """
        return await self._posts.post(
            await self._people.user_of(channel),
            text=text,
            blocks=blocks,
            thread_ts=thread_ts,
            reply_broadcast=reply_broadcast or None,
            unfurl_links=unfurl_links,
        )

    @action(idempotent=True)
    async def update_message(
        self, channel: MessageChannel, ts: Timestamp, text: Text, blocks: Blocks | None = None
    ) -> PostedMessage:
        """Change a message that the bot has posted."""
        # Without blocks the old blocks would stay, and hide the text.
        return await self._api.call_for(
            PostedMessage, "chat.update", channel=channel, ts=ts, text=text, blocks=blocks or []
        )

    @action(idempotent=True)
    async def add_reaction(
        self,
        channel: MessageChannel,
        ts: Timestamp,
        name: Annotated[str, Field(description="An emoji's name, such as thumbsup.")],
    ) -> PostedMessage:
        """Add a reaction to a message; one that is there already stays."""
        try:
            await self._api.call(
                "reactions.add", channel=channel, timestamp=ts, name=name.strip(":")
            )
        except AutomateError as error:
            if error.details.get("slack_error") != "already_reacted":
                raise
        return PostedMessage(channel=channel, ts=ts)

    @action
    async def upload_file(
        self,
        filename: Annotated[
            str, Field(min_length=1, max_length=255, description="Its name, with the ending.")
        ],
        text: Annotated[str | None, Field(description="The content as text.")] = None,
        base64: Annotated[str | None, Field(description="The content in base64.")] = None,
        channel: ChannelId | None = None,
        title: Annotated[str | None, Field(description="Its title; by default its name.")] = None,
        comment: Annotated[str | None, Field(description="The message with it.")] = None,
        thread_ts: Timestamp | None = None,
    ) -> SharedFile:
        """
        Upload a file, and share it in a channel.

        Slack has no key by which a repetition is known: if its answer is lost, the file may be
        there twice.
        """
        content = _content(text, base64)
        begun = await self._api.call(
            "files.getUploadURLExternal", filename=filename, length=len(content)
        )
        await self._api.upload(str(begun.get("upload_url")), content)
        target = await self._people.user_of(channel) if channel else None
        if target is not None and target[:1] in "UW":
            target = (await self.open_conversation([target])).channel
        answer = await self._api.call(
            "files.completeUploadExternal",
            files=[{"id": begun.get("file_id"), "title": title or filename}],
            channel_id=target,
            initial_comment=comment,
            thread_ts=thread_ts,
        )
        return shaped(SharedFile, "files.completeUploadExternal", value_at(answer, "files", 0))

    # -- channels and people -----------------------------------------------------------------

    @action(read_only=True)
    async def find_user(
        self, email: Annotated[str, Field(description="The person's e-mail address.")]
    ) -> SlackUser:
        """Find a person by e-mail."""
        answer = await self._api.call("users.lookupByEmail", email=email)
        user = value_at(answer, "user")
        email_there = value_at(user, "profile", "email")
        found = {**(user if isinstance(user, dict) else {}), "email": email_there}
        return shaped(SlackUser, "users.lookupByEmail", found)

    @action(idempotent=True)
    async def open_conversation(
        self,
        users: Annotated[
            list[str], Field(min_length=1, max_length=8, description="Their ids (U…).")
        ],
    ) -> Conversation:
        """Open a direct message with people, by their ids; it is the same one each time."""
        place = ("channel", "id")
        return Conversation(
            channel=await self._api.call_for_text(
                place, "conversations.open", users=",".join(users)
            )
        )

    @action(read_only=True)
    async def list_channels(
        self,
        limit: Annotated[
            int, Field(ge=1, le=_MOST_CHANNELS, description="The most channels.")
        ] = 1_000,
        include_archived: Annotated[bool, Field(description="List archived ones too.")] = False,
    ) -> ChannelList:
        """List the public channels, and the private ones that the bot is in."""
        found = self._api.items(
            "conversations.list", "channels", most=limit,
            exclude_archived=not include_archived, types="public_channel,private_channel",
        )  # fmt: skip
        return ChannelList(
            channels=[shaped(Channel, "conversations.list", each) async for each in found]
        )

    @options("channel")
    async def channels(self) -> list[FieldOption]:
        """Return the channels, by name."""
        found = await self.list_channels(limit=_MOST_CHANNELS)
        return [FieldOption(each.id, f"#{each.name}") for each in found.channels]

    # -- approvals ---------------------------------------------------------------------------

    @action
    async def ask_approval(
        self,
        channel: ChannelId,
        execution_id: Annotated[
            str | None, Field(description="The waiting execution; by default that of the call.")
        ] = None,
        step_id: Annotated[
            str | None, Field(description="The waiting step; by default that of the call.")
        ] = None,
        position: Annotated[
            int, Field(description="The place of the element within for_each; else -1.")
        ] = -1,
    ) -> PostedMessage:
        """
        Post the question of a waiting approval with buttons to approve and to reject.

        Made for the ``notify`` of an approval, whose step it then asks for. Elsewhere say which
        execution and step it is.
        """
        target = await self._people.user_of(channel)
        return await self._approvals.ask(
            await self._buttons(), target, execution_id, step_id, position
        )

    @action(idempotent=True)
    async def answer_approval(
        self,
        proof: Annotated[str, Field(description="The proof of the click.")],
        comment: Annotated[str, Field(description="The comment that was typed.")] = "",
        question: Annotated[
            list[dict[str, Any]],
            Field(max_length=50, description="The blocks of the question, which stay."),
        ] = [],  # noqa: B006 - never changed
    ) -> ClickOutcome:
        """
        Decide on an approval as a click on one of its buttons says.

        The input is ``event.payload.approval`` of the webhook ``slack.interaction``. The message
        shows who has decided. A click that comes second, or by somebody who may not decide,
        decides nothing.
        """
        return await self._approvals.answer(await self._buttons(), proof, comment, question)

    async def _buttons(self) -> ApprovalButtons:
        return ApprovalButtons(await self.ctx.secrets.aget(SIGNING_SECRET))

    # -- webhooks ----------------------------------------------------------------------------

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Return the triggers: one for each request URL of a Slack app."""
        signature = SlackSignature(f"$secret:{SIGNING_SECRET}")
        return [
            TriggerSpec(
                "event",
                description="An event of the Events API: message, app_mention, …",
                signature=signature,
                payload_schema=EventDelivery,
                replay_guard="required",
            ),
            TriggerSpec(
                "interaction",
                description="A click, a choice, a shortcut, or a form that was sent.",
                signature=signature,
                payload_schema=Interaction,
                answer={},
            ),
            TriggerSpec(
                "command",
                description="A slash command.",
                signature=signature,
                payload_schema=SlashCommand,
                answer={"response_type": "ephemeral", "text": "Got it."},
            ),
        ]

    def ignores_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Ignored | None:
        """Ignore what is no event, and what the app itself has written."""
        found = super().ignores_webhook(trigger, headers, raw_body)
        return found or (_no_event(raw_body) if trigger == "event" else None)

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        """Return the event, interaction or command, without tokens and response addresses."""
        if trigger == "event":
            payload = super().parse_webhook(trigger, headers, raw_body)
            return {name: value for name, value in payload.items() if name != "token"}
        if trigger == "command":
            payload = read_command(raw_body)
        else:
            payload = read_interaction(raw_body)
            buttons = ApprovalButtons(self.ctx.secrets.get(SIGNING_SECRET))
            payload["approval"] = buttons.click(payload)
        self.find_trigger(trigger).check_payload(payload)
        return payload

    async def close(self) -> None:
        """Close the connections."""
        await self._api.aclose()


def _no_event(raw_body: bytes) -> Ignored | None:
    try:
        body = parse_json(raw_body)
    except BodyError:
        return None  # its reader says what is wrong
    kind = value_at(body, "type")
    if isinstance(kind, str) and kind != "event_callback":
        return Ignored(f"Slack says {kind[:40]!r}")
    app = value_at(body, "api_app_id")
    # Else a workflow that answers messages would answer its own.
    if app is not None and app in (
        value_at(body, "event", "app_id"), value_at(body, "event", "bot_profile", "app_id"),
    ):  # fmt: skip
        return Ignored("the app's own message")
    return None


def _content(text: str | None, encoded: str | None) -> bytes:
    if (text is None) == (encoded is None):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "give the content as text or as base64")
    if text is not None:
        return text.encode("utf-8", "surrogatepass")
    try:
        return b64decode(encoded or "", validate=True)
    except ValueError:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the content is no base64") from None
