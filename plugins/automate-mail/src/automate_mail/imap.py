"""IMAP: one session with a server, bounded in time and in the bytes that it may say."""

from __future__ import annotations

import base64
import imaplib
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.config import MailServer
from automate_mail.failures import login_failed, said, transport_failure

_CHUNK = 65_536
_GOODBYE_SECONDS = 1.0
_OVERHEAD = 4 * 1_048_576  # lists of numbers, headers, and all that isn't the one large message


class _TooMuchError(Exception):
    """The server has said more than a session may hear."""


class BoundedImap(imaplib.IMAP4):
    """
    The standard library's client, reading from its socket within a deadline and a number of bytes.

    Its own reads wait again for each byte that drips in, and take any size that a server names.
    """

    def __init__(self, server: MailServer, *, timeout_seconds: float, max_bytes: int) -> None:
        self._server = server
        self._deadline = time.monotonic() + timeout_seconds
        self._left = max_bytes
        self._received = bytearray()
        port = server.port or (993 if server.tls == "implicit" else 143)
        super().__init__(server.host, port, timeout_seconds)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, by TLS if it is implicit."""
        self.host, self.port = host, port
        plain = socket.create_connection((host, port), self._remaining())
        try:
            if self._server.tls == "implicit":
                plain = self._server.tls_context().wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self.sock = plain

    def upgrade(self) -> None:
        """Begin TLS. What was said in clear before it counts for nothing afterwards."""
        self.sock.settimeout(self._remaining())
        answer, _ = self.xatom("STARTTLS")
        if answer != "OK" or self._received:
            raise self.abort("STARTTLS was refused or tampered with")
        self.sock = self._server.tls_context().wrap_socket(self.sock, server_hostname=self.host)
        self.learn_capabilities()

    def learn_capabilities(self) -> None:
        """Ask for the capabilities: TLS and a login may have changed them."""
        self.untagged_responses.clear()
        _, found = self.capability()
        self.capabilities = tuple(found[-1].decode("ascii", "replace").upper().split())

    def leave(self) -> None:
        """Say goodbye, for a second at most. What was asked for is done already."""
        self._deadline = min(self._deadline, time.monotonic() + _GOODBYE_SECONDS)
        with suppress(Exception):
            self.logout()

    def read(self, size: int) -> bytes:
        """Return *size* bytes, if that many may still come."""
        if size > self._left + len(self._received):
            raise _TooMuchError
        while len(self._received) < size:
            self._receive()
        return self._taken(size)

    def readline(self) -> bytes:
        """Return a line, with its end."""
        begin = 0
        while (end := self._received.find(b"\n", begin)) < 0:
            begin = len(self._received)
            self._receive()
        return self._taken(end + 1)

    def send(self, data: Any) -> None:
        """Send *data* in the time that is left."""
        self.sock.settimeout(self._remaining())
        self.sock.sendall(data)

    def shutdown(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _receive(self) -> None:
        if self._left <= 0:
            raise _TooMuchError
        self.sock.settimeout(self._remaining())
        found = self.sock.recv(min(_CHUNK, self._left))
        if not found:
            raise self.abort("the server has closed the connection")
        self._left -= len(found)
        self._received += found

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _remaining(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class ImapSession:
    """A session that is logged in. Made by `imap_session`, which words its errors."""

    def __init__(self, client: BoundedImap, what: str, redact: Callable[[str], str]) -> None:
        self._client, self._what, self._redact = client, what, redact

    @property
    def capabilities(self) -> Sequence[str]:
        """The server's capabilities, in capitals."""
        return self._client.capabilities

    def open_mailbox(self, mailbox: str, *, writable: bool = False) -> int:
        """Open *mailbox*, and return its UIDVALIDITY, under which its numbers count."""
        answer, data = self._client.select(quoted(encoded_name(mailbox)), not writable)
        self._require(answer, data, f"mailbox {mailbox!r}", ErrorCodes.NOT_FOUND)
        return self._number("UIDVALIDITY")

    def next_uid(self) -> int:
        """Return the number that the next message of the opened mailbox will have."""
        return self._number("UIDNEXT")

    def search(self, criteria: Sequence[str], literal: str | None = None) -> list[int]:
        """Return the numbers that fit, ascending; *literal* is the last criterion's text."""
        words = list(criteria)
        if literal is not None:
            words = ["CHARSET", "UTF-8", *words]
            self._client.literal = literal.encode()  # type: ignore[assignment]  # bytes are sent
        answer, data = self._client.uid("SEARCH", *words)
        self._require(answer, data, "the search", ErrorCodes.INVALID_ARGUMENT)
        found = b" ".join(each for each in data if isinstance(each, bytes))
        return sorted({int(each) for each in found.split() if each.isdigit() and len(each) < 20})

    def fetch(self, uids: Sequence[int], items: str) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield what came for each message: the words beside its literals, and the literals."""
        answer, data = self._client.uid("FETCH", ",".join(map(str, uids)), items)
        self._require(answer, data, "the fetch", ErrorCodes.UNAVAILABLE)
        words, literals = b"", []
        for each in data:
            if isinstance(each, tuple):
                words += each[0]
                literals.append(each[1])
            elif isinstance(each, bytes):
                yield words + each, literals
                words, literals = b"", []

    def command(self, what: str, name: str, *words: str) -> None:
        """Carry out ``UID name words``; *what* names it in an error."""
        answer, data = self._client.uid(name, *words)
        self._require(answer, data, what, ErrorCodes.FAILED_PRECONDITION)

    def append(self, mailbox: str, content: bytes) -> None:
        """Put a message that was read into *mailbox*."""
        answer, data = self._client.append(quoted(encoded_name(mailbox)), r"(\Seen)", "", content)
        self._require(answer, data, f"mailbox {mailbox!r}", ErrorCodes.NOT_FOUND)

    def _number(self, name: str) -> int:
        _, data = self._client.response(name)
        text = data[-1] if data else None
        if not isinstance(text, bytes) or not text.isdigit() or len(text) > 19:
            raise AutomateError(ErrorCodes.UNAVAILABLE, f"{self._what} did not say {name}")
        return int(text)

    def _require(self, answer: str, data: Sequence[Any], what: str, code: ErrorCodes) -> None:
        if answer != "OK":
            words = said(data[-1] if data and isinstance(data[-1], bytes) else b"", self._redact)
            raise AutomateError(code, f"{self._what} refused {what}: {words}")


@contextmanager
def imap_session(
    server: MailServer,
    secret: str | None,
    *,
    timeout_seconds: float,
    max_message_bytes: int,
    redact: Callable[[str], str] = str,
) -> Iterator[ImapSession]:
    """Log in for the block; let nothing but `AutomateError` out of it."""
    what = f"the IMAP server {server.host}"
    bound = max_message_bytes + _OVERHEAD
    client: BoundedImap | None = None
    try:
        client = BoundedImap(server, timeout_seconds=timeout_seconds, max_bytes=bound)
        if server.tls == "starttls":
            client.upgrade()
        _login(client, server, secret, what)
        client.learn_capabilities()
        yield ImapSession(client, what, redact)
        client.leave()
    except AutomateError:
        raise
    except _TooMuchError:
        raise AutomateError(
            ErrorCodes.RESOURCE_EXHAUSTED,
            f"{what} said more than {bound} bytes",
            hint="search for less, or raise max_message_bytes",
            retryable=False,
        ) from None
    except (OSError, imaplib.IMAP4.abort) as error:
        # imaplib wraps what its socket raised while sending.
        raise transport_failure(what, error) from None
    except (imaplib.IMAP4.error, ValueError, IndexError, AttributeError, TypeError) as error:
        # The parser of the standard library falls over some garbage.
        words = said(str(error), redact)
        raise AutomateError(
            ErrorCodes.UNAVAILABLE, f"{what} can't be understood: {words}"
        ) from None
    finally:
        if client is not None:
            client.shutdown()


def _login(client: BoundedImap, server: MailServer, secret: str | None, what: str) -> None:
    if server.user is None or secret is None:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION, f"{what} needs a login", hint="set user and secret"
        )
    try:
        if server.auth == "xoauth2":
            token = f"user={server.user}\1auth=Bearer {secret}\1\1".encode()
            sent: list[bytes] = []

            def respond(_challenge: bytes) -> bytes:
                # A refusal comes as a challenge with the reason, and is answered with nothing.
                sent.append(b"" if sent else token)
                return sent[-1]

            client.authenticate("XOAUTH2", respond)
        elif "\r" in secret or "\n" in secret or not (secret + server.user).isascii():
            credentials = b"\0" + server.user.encode() + b"\0" + secret.encode()
            client.authenticate("PLAIN", lambda _challenge: credentials)
        else:
            client.login(quoted(server.user), secret)
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error:
        raise login_failed(what, server) from None


def quoted(text: str) -> str:
    """Return *text* as a quoted string of IMAP, which holds no line break."""
    if re.search("[\r\n\0]", text):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "line breaks and NUL can't stand in a search or a name"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def encoded_name(mailbox: str) -> str:
    """Return a mailbox's name in the modified UTF-7 that IMAP has for names."""

    def encode(match: re.Match[str]) -> str:
        if match[0] == "&":
            return "&-"
        packed = base64.b64encode(match[0].encode("utf-16-be"), b"+,").decode().rstrip("=")
        return f"&{packed}-"

    return re.sub(r"&|[^\x20-\x7e]+", encode, mailbox)
