"""SMTP: hand one mail to the server, and know whether it was taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

import aiosmtplib

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.config import MailServer
from automate_mail.failures import code_of_reply, login_failed, said, transport_failure
from automate_mail.letter import Posting, too_large

# The name that a client gives of itself: an address literal, since the machine's name is no
# business of the receivers', and looking it up may block.
_HELO = "[127.0.0.1]"
_GOODBYE_SECONDS = 1.0
_FIRST_FAILURE = 400

T = TypeVar("T")


@dataclass(slots=True)
class SmtpSession:
    """One connection, for one mail. `handing_over` is True while it is open who has the mail."""

    server: MailServer
    secret: str | None = field(repr=False)
    timeout_seconds: float
    redact: Callable[[str], str] = str
    handing_over: bool = False

    @property
    def _what(self) -> str:
        return f"the SMTP server {self.server.host}"

    async def check(self) -> None:
        """Connect, log in and leave."""
        client = self._client()
        try:
            await self._bounded(self._connect(client))
            await _leave(client)
        finally:
            client.close()

    async def submit(self, posting: Posting, *, partial: bool = False) -> dict[str, str]:
        """
        Hand the mail over, and return the receivers that were refused with the server's words.

        Unless it is *partial*, one refused receiver is an error, and nobody gets the mail. An error
        of which nobody knows whether the mail was taken has the code ``DEADLINE_EXCEEDED``, is not
        tried again, and names the Message-ID. Time that ran out before is ``UNAVAILABLE``.
        """
        client = self._client()
        try:
            refused = await self._bounded(self._submit(client, posting, partial=partial))
            # Outside the time of the session: a mail that was taken must not look like a failure.
            await _leave(client)
            return refused
        except AutomateError:
            if not self.handing_over:
                raise
            raise _unknown_outcome(self._what, posting.message_id) from None
        finally:
            client.close()

    async def _bounded(self, work: Coroutine[None, None, T]) -> T:
        """Await *work* for as long as a session may take; let nothing but `AutomateError` out."""
        try:
            return await asyncio.wait_for(work, self.timeout_seconds)
        except AutomateError:
            raise
        except aiosmtplib.SMTPResponseException as error:
            raise self._refusal(error.code, error.message) from None
        except (OSError, asyncio.TimeoutError, EOFError) as error:
            raise transport_failure(self._what, error, late=ErrorCodes.UNAVAILABLE) from None
        except (aiosmtplib.SMTPException, ValueError) as error:
            words = said(str(error), self.redact)
            code = ErrorCodes.UNAVAILABLE
            raise AutomateError(code, f"{self._what} can't be used: {words}") from None

    def _refusal(self, status: int, words: str) -> AutomateError:
        code, retryable = code_of_reply(status)
        return AutomateError(
            code,
            f"{self._what} answered {status}: {said(words, self.redact)}",
            retryable=retryable,
        )

    async def _submit(
        self, client: aiosmtplib.SMTP, posting: Posting, *, partial: bool
    ) -> dict[str, str]:
        await self._connect(client)
        limit = client.esmtp_extensions.get("size", "")
        if limit.isascii() and limit.isdigit() and 0 < int(limit[:18]) < len(posting.content):
            raise too_large(int(limit[:18]))
        await client.mail(posting.sender)
        refused = await self._offer(client, posting)
        if refused and (not partial or len(refused) == len(posting.receivers)):
            raise self._refused_receivers(refused)
        await self._hand_over(client, posting.content)
        return {address: said(error.message, self.redact) for address, error in refused.items()}

    def _client(self) -> aiosmtplib.SMTP:
        server = self.server
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port or {"implicit": 465, "starttls": 587, "none": 25}[server.tls],
            use_tls=server.tls == "implicit",
            start_tls=server.tls == "starttls",
            tls_context=None if server.tls == "none" else server.tls_context(),
            local_hostname=_HELO,
            timeout=self.timeout_seconds,
        )

    async def _connect(self, client: aiosmtplib.SMTP) -> None:
        await client.connect()
        await client.ehlo()
        user, secret = self.server.user, self.secret
        if user is None or secret is None:
            return
        try:
            if self.server.auth == "xoauth2":
                await client.auth_xoauth2(user, secret)
            else:
                await client.login(user, secret)
        except aiosmtplib.SMTPAuthenticationError as error:
            raise login_failed(self._what, self.server, temporary=400 <= error.code < 500) from None
        except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPNotSupported, ValueError):
            raise login_failed(self._what, self.server) from None

    async def _offer(
        self, client: aiosmtplib.SMTP, posting: Posting
    ) -> dict[str, aiosmtplib.SMTPRecipientRefused]:
        refused = {}
        for address in posting.receivers:
            try:
                await client.rcpt(address)
            except aiosmtplib.SMTPRecipientRefused as error:
                if not _FIRST_FAILURE <= error.code < 600 or error.code == 421:
                    raise  # it isn't about this receiver
                refused[address] = error
        return refused

    async def _hand_over(self, client: aiosmtplib.SMTP, content: bytes) -> None:
        self.handing_over = True
        try:
            await client.data(content)
        except aiosmtplib.SMTPDataError as error:
            # A plain no to DATA or after the content. Anything else leaves it open.
            self.handing_over = not _FIRST_FAILURE <= error.code < 600
            raise
        self.handing_over = False

    def _refused_receivers(
        self, refused: dict[str, aiosmtplib.SMTPRecipientRefused]
    ) -> AutomateError:
        # An address that is refused for good is so the next time as well.
        worst = max(refused.values(), key=lambda error: error.code)
        code, retryable = code_of_reply(worst.code)
        return AutomateError(
            code,
            f"{self._what} refused {', '.join(list(refused)[:5])}: "
            f"{worst.code} {said(worst.message, self.redact)}",
            hint="nobody got the mail; deliver_to_accepted sends it to the others",
            retryable=retryable,
        )


def _unknown_outcome(what: str, message_id: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.DEADLINE_EXCEEDED,
        f"{what} got the mail {message_id} and did not say whether it took it",
        hint="look for its Message-ID at the receiver or in the folder of sent mail",
        retryable=False,
    )


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye, for a second at most. The mail's fate is decided already."""
    try:
        await client.quit(timeout=_GOODBYE_SECONDS)
    except (aiosmtplib.SMTPException, OSError, ValueError, asyncio.TimeoutError):
        pass
