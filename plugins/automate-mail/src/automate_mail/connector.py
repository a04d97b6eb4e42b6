"""The connector: mail is sent by SMTP, and read by IMAP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from automate_kernel import AutomateError, Call, Connector, ErrorCodes, PollResult, action, poll
from automate_mail.addresses import HeaderText
from automate_mail.approval import ApprovalRequest
from automate_mail.arrivals import arrivals, summaries
from automate_mail.config import MailConfig, MailServer
from automate_mail.imap import ImapSession, encoded_name, imap_session, quoted
from automate_mail.letter import Letter, Posting, posting_of
from automate_mail.reading import FetchedMessage, Summary, message_of
from automate_mail.search import Criteria
from automate_mail.smtp import SmtpSession

if TYPE_CHECKING:
    from automate_http.oauth_account import OAuthAccount

T = TypeVar("T")
_FLAGS = {
    "seen": r"\Seen",
    "flagged": r"\Flagged",
    "answered": r"\Answered",
    "deleted": r"\Deleted",
}


class Sent(BaseModel):
    """A mail that was sent."""

    message_id: str = Field(description="Its Message-ID: the same each time a step sends it.")
    refused: dict[str, str] = Field(description="The receivers that the server refused, and why.")
    already_sent: bool = Field(description="True if it was found in the folder of sent mail.")
    saved: bool = Field(description="True if a copy is in the folder of sent mail.")


class FoundMessages(BaseModel):
    """The messages that a search found."""

    messages: list[Summary] = Field(description="The messages, the newest first.")
    total: int = Field(description="How many there are, also beyond the limit.")


class MessagePlace(BaseModel):
    """A message by its place."""

    mailbox: HeaderText = Field("INBOX", min_length=1, description="The mailbox.")
    uid: int = Field(ge=1, lt=2**32, description="The message's number in the mailbox.")
    uid_validity: int | None = Field(
        None, description="The number under which it counts: refused if the mailbox has another."
    )


class Marks(MessagePlace):
    """Flags to set or to take away; the others stay as they are."""

    seen: bool | None = Field(None, description="Read, or not read.")
    flagged: bool | None = Field(None, description="Flagged, or not flagged.")
    answered: bool | None = Field(None, description="Answered, or not answered.")
    deleted: bool | None = Field(None, description="Marked for deletion, or not.")


class Move(MessagePlace):
    """A message and where it goes."""

    target: HeaderText = Field(min_length=1, description="The mailbox to move it to.")


class Moved(BaseModel):
    """The place that a message went to."""

    mailbox: str = Field(description="The mailbox. The message has another number there.")


class Fetch(MessagePlace):
    """A message to read."""

    contents: bool = Field(False, description="With the contents of its files, in base64.")


class MailConnector(Connector):
    """Sends mail, asks for approvals, reads mailboxes, and hears of what arrived."""

    key = "mail"
    display_name = "Mail"

    def __init__(self, config: dict[str, Any] | None = None, *, ctx: Any = None) -> None:
        super().__init__(config, ctx=ctx)
        self._config: MailConfig = self.parse_config(config)
        oauth = self._config.oauth
        servers = {"smtp": self._config.smtp, "imap": self._config.imap}
        self._account: OAuthAccount | None = None
        if oauth is not None:
            self._account = oauth.account(
                f"{self.ctx.key}-account",
                plugin=self.ctx.key,
                servers=[name for name, server in servers.items() if server is not None],
            )

    @classmethod
    def config_schema(cls) -> type[MailConfig]:
        """Return the model of the config."""
        return MailConfig

    def oauth(self) -> OAuthAccount | None:
        """Return the account of the mailbox, if the config has ``oauth``."""
        return self._account

    @action
    async def send(self, letter: Letter, call: Call) -> Sent:
        """
        Send a mail.

        A repeated step sends it with the same Message-ID, and not at all if it finds it in the
        folder of sent mail.
        """
        return await self._send(letter, call.idempotency_key)

    @action
    async def ask_approval(
        self,
        approval: Annotated[
            ApprovalRequest, Field(description="What notify knows: {{ approval }}.")
        ],
        call: Call,
        subject: Annotated[
            HeaderText | None, Field(description="The subject; by default the title.")
        ] = None,
    ) -> Sent:
        """Ask a person by mail to approve or to reject, with signed links that work once."""
        return await self._send(approval.letter(subject), call.idempotency_key)

    @action(read_only=True)
    def search(self, criteria: Criteria) -> FoundMessages:
        """Find messages in a mailbox."""
        words, literal = criteria.words()
        with self._imap() as session:
            validity = session.open_mailbox(criteria.mailbox)
            uids = session.search(words, literal)
            newest = uids[::-1][: criteria.limit]
            found = summaries(session, criteria.mailbox, validity, newest)
        return FoundMessages(messages=found, total=len(uids))

    @action(read_only=True)
    def fetch(self, wanted: Fetch) -> FetchedMessage:
        """Read one message, with its text and its files. It is not marked as read."""
        limit = self._config.max_message_bytes
        with self._opened(wanted) as (session, summary):
            raw = b""
            for _, literals in session.fetch([wanted.uid], f"(BODY.PEEK[]<0.{limit}>)"):
                raw = literals[0] if literals else raw
        return message_of(summary, raw[:limit], contents=wanted.contents)

    @action(idempotent=True)
    def mark(self, marks: Marks) -> Summary:
        """Set or take away flags of one message."""
        with self._opened(marks, writable=True) as (session, summary):
            for sign, wanted in (("+", True), ("-", False)):
                flags = [flag for name, flag in _FLAGS.items() if getattr(marks, name) is wanted]
                if flags:
                    change = f"({' '.join(flags)})"
                    uid = str(marks.uid)
                    session.command("the flags", "STORE", uid, f"{sign}FLAGS.SILENT", change)
            changed = summaries(session, marks.mailbox, summary.uid_validity, [marks.uid])
        return changed[0] if changed else summary

    @action
    def move(self, wanted: Move, call: Call) -> Moved:
        """
        Move one message to another mailbox.

        Once it has gone, another attempt doesn't find it: a move isn't idempotent.
        """
        target, uid = quoted(encoded_name(wanted.target)), str(wanted.uid)
        with self._opened(wanted, writable=True) as (session, summary):
            if "MOVE" in session.capabilities:
                session.command(f"the move to {wanted.target!r}", "MOVE", uid, target)
                return Moved(mailbox=wanted.target)
            if "UIDPLUS" not in session.capabilities:
                # A plain EXPUNGE would delete what others have marked.
                raise AutomateError(
                    ErrorCodes.UNIMPLEMENTED, "the IMAP server can't move one message"
                )
            if not (call.repeated and self._is_in(wanted.target, summary)):
                session.command(f"the copy to {wanted.target!r}", "COPY", uid, target)
            session.command("the deletion", "STORE", uid, "+FLAGS.SILENT", r"(\Deleted)")
            session.command("the deletion", "EXPUNGE", uid)
        return Moved(mailbox=wanted.target)

    @poll("arrived", every="1m", max_events=100)
    def arrived(self, cursor: Any) -> PollResult:
        """Messages that came into the inbox."""
        server = self._config.imap
        account = f"{server.user}@{server.host}" if server is not None else ""
        with self._imap() as session:
            return arrivals(session, self._config.inbox, cursor, account=account)

    async def check(self) -> str:
        """Connect to each server that is configured, log in and leave."""
        config, tried = self._config, []
        if config.smtp is not None:
            await self._by_smtp(lambda session: session.check())
            tried.append(f"SMTP at {config.smtp.host}")
        if config.imap is not None:
            await asyncio.to_thread(self._check_imap)
            tried.append(f"IMAP at {config.imap.host}")
        if not tried:
            raise _not_configured("smtp")
        return " and ".join(tried) + " can be used"

    def _check_imap(self) -> None:
        with self._imap() as session:
            session.open_mailbox(self._config.inbox)

    async def _send(self, letter: Letter, key: str | None) -> Sent:
        config = self._config
        if config.smtp is None:
            raise _not_configured("smtp")
        # On a thread: reading files and encoding them takes its time.
        posting = await asyncio.to_thread(
            posting_of,
            letter,
            str(config.sender),
            key=key,
            files_from=config.files_from,
            limit=config.max_message_bytes,
        )
        if key is not None and await asyncio.to_thread(self._is_in_sent, posting):
            return Sent(message_id=posting.message_id, refused={}, already_sent=True, saved=True)
        partial = letter.deliver_to_accepted
        refused = await self._by_smtp(lambda session: session.submit(posting, partial=partial))
        saved = await asyncio.to_thread(self._save, posting)
        return Sent(message_id=posting.message_id, refused=refused, already_sent=False, saved=saved)

    def _is_in_sent(self, posting: Posting) -> bool:
        if self._config.sent is None:
            return False
        with self._imap() as session:
            session.open_mailbox(self._config.sent.mailbox)
            return bool(session.search(["HEADER", "Message-ID", quoted(posting.message_id)]))

    def _is_in(self, mailbox: str, summary: Summary) -> bool:
        """Return True if *mailbox* has a copy of a message, from an attempt that came so far."""
        message_id = summary.message_id
        if message_id is None or not message_id.isascii():
            return False
        size = ["LARGER", str(summary.size - 1), "SMALLER", str(summary.size + 1)]
        with self._imap() as session:
            validity = session.open_mailbox(mailbox)
            found = session.search(["HEADER", "Message-ID", quoted(message_id), *size])
        # The mailbox may be the message's own, under another name.
        own = summary.uid if validity == summary.uid_validity else None
        return any(each != own for each in found)

    def _save(self, posting: Posting) -> bool:
        """Put a copy among the sent mail. The mail is out: a failure fails nothing any more."""
        sent = self._config.sent
        if sent is None or not sent.append:
            return False
        try:
            with self._imap() as session:
                session.append(sent.mailbox, posting.content)
        except AutomateError as error:
            text = "the mail %s was sent, and no copy was kept: %s"
            self.ctx.logger.warning(text, posting.message_id, error)
            return False
        return True

    async def _by_smtp(self, work: Callable[[SmtpSession], Awaitable[T]]) -> T:
        """Do *work* in a session; once more if the login refused a token, and there is another."""
        server = self._config.smtp
        if server is None:
            raise _not_configured("smtp")
        seconds, redact = self._config.timeout_seconds, self.ctx.redact
        secret = await asyncio.to_thread(self._secret_of, server)
        try:
            return await work(SmtpSession(server, secret, seconds, redact))
        except AutomateError as error:
            secret = await asyncio.to_thread(self._other_token, server, secret, error)
        return await work(SmtpSession(server, secret, seconds, redact))

    @contextmanager
    def _imap(self) -> Iterator[ImapSession]:
        server: MailServer | None = self._config.imap
        if server is None:
            raise _not_configured("imap")
        secret = self._secret_of(server)
        with ExitStack() as stack:
            try:
                session = stack.enter_context(self._imap_session(server, secret))
            except AutomateError as error:
                secret = self._other_token(server, secret, error)
                session = stack.enter_context(self._imap_session(server, secret))
            yield session

    def _imap_session(
        self, server: MailServer, secret: str | None
    ) -> AbstractContextManager[ImapSession]:
        return imap_session(
            server,
            secret,
            timeout_seconds=self._config.timeout_seconds,
            max_message_bytes=self._config.max_message_bytes,
            redact=self.ctx.redact,
        )

    def _secret_of(self, server: MailServer) -> str | None:
        if server.by_account and self._account is not None:
            return self._account.access_token(self.ctx.secrets)
        return self.ctx.secrets.get(server.secret) if server.secret else None

    def _other_token(self, server: MailServer, used: str | None, error: AutomateError) -> str:
        """Return another token than the one that was *used*, for another login; else raise."""
        account = self._account if server.by_account else None
        if account is None or used is None or error.code is not ErrorCodes.UNAUTHENTICATED:
            raise error
        return account.access_token(self.ctx.secrets, refused=(used,))

    @contextmanager
    def _opened(
        self, place: MessagePlace, *, writable: bool = False
    ) -> Iterator[tuple[ImapSession, Summary]]:
        """Open the message's mailbox, and find the message in it."""
        with self._imap() as session:
            validity = session.open_mailbox(place.mailbox, writable=writable)
            if place.uid_validity not in (None, validity):
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    f"mailbox {place.mailbox!r} was numbered anew: {place.uid} is another message",
                    hint="search for the message by its Message-ID",
                )
            found = summaries(session, place.mailbox, validity, [place.uid])
            if not found:
                raise AutomateError(
                    ErrorCodes.NOT_FOUND, f"mailbox {place.mailbox!r} has no message {place.uid}"
                )
            yield session, found[0]


def _not_configured(name: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"mail has no {name} server",
        hint=f"set config.mail.{name} to its host, user and secret",
    )
