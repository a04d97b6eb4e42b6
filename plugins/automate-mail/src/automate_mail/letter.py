"""Letters: a mail to be sent, from the fields of an action to the bytes on the wire."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.addresses import HeaderText, MailAddress, MessageId, one_line, parse_address
from automate_mail.headers import (
    WIRE,
    encoded_addresses,
    encoded_attachment,
    encoded_text,
    folded,
    refusing,
    require_own_headers,
)

_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")


class Attachment(BaseModel):
    """A file of a mail: its content as base64, or its path below `files_from`."""

    model_config = ConfigDict(extra="forbid")

    filename: HeaderText | None = Field(None, description="Its name; a path has one by itself.")
    content_type: str = Field(
        "application/octet-stream", max_length=255, description="Its media type."
    )
    base64: str | None = Field(None, description="Its content, in base64.")
    path: str | None = Field(None, description="Its path below the config's files_from.")

    @field_validator("content_type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        if not _CONTENT_TYPE.fullmatch(value.lower()) or value.lower().startswith(
            ("multipart/", "message/")
        ):
            raise ValueError("is no media type of a file, such as application/pdf")
        return value.lower()

    @model_validator(mode="after")
    def _check(self) -> Attachment:
        if (self.base64 is None) == (self.path is None):
            raise ValueError("an attachment has either base64 or path")
        if self.path is None and not self.filename:
            raise ValueError("an attachment with base64 needs a filename")
        return self

    def disposition(self) -> str:
        """Return the header that names the file; a name on a disk may hold anything."""
        with refusing("Content-Disposition"):
            return encoded_attachment(one_line(self.filename or Path(self.path or "").name))

    def read(self, files_from: str | None, limit: int) -> bytes:
        """Return the content, at most *limit* bytes; raise ``INVALID_ARGUMENT`` otherwise."""
        if self.base64 is not None:
            if len(self.base64) // 4 * 3 - 2 > limit:
                raise too_large(limit)
            try:
                return base64.b64decode(self.base64, validate=True)
            except (binascii.Error, ValueError):
                raise AutomateError(
                    ErrorCodes.INVALID_ARGUMENT, f"attachment {self.filename!r} is not base64"
                ) from None
        with _file_below(files_from, self.path or "").open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise too_large(limit)
        return content


class Letter(BaseModel):
    """A mail as an action takes it."""

    model_config = ConfigDict(extra="forbid")

    to: list[MailAddress] = Field(default=[], max_length=100, description="The receivers.")
    cc: list[MailAddress] = Field(default=[], max_length=100, description="Receivers of a copy.")
    bcc: list[MailAddress] = Field(
        default=[], max_length=100, description="Receivers whom the others don't see."
    )
    subject: HeaderText = Field("", description="The subject.")
    text: str | None = Field(None, description="The body as plain text.")
    html: str | None = Field(
        None, description="The body as HTML. Escape values in it: {{ x | e }}."
    )
    reply_to: MailAddress | None = Field(None, description="The address for answers.")
    attachments: list[Attachment] = Field(default=[], max_length=50, description="The files.")
    in_reply_to: MessageId | None = Field(None, description="The Message-ID that it answers.")
    references: list[MessageId] = Field(
        default=[], max_length=50, description="The Message-IDs of the thread, the oldest first."
    )
    deliver_to_accepted: bool = Field(
        False, description="Send it to the others if the server refuses some of the receivers."
    )

    @model_validator(mode="after")
    def _check(self) -> Letter:
        if not self.receivers():
            raise ValueError("a mail needs a receiver: to, cc or bcc")
        if self.text is None and self.html is None:
            raise ValueError("a mail needs text or html")
        return self

    def receivers(self) -> list[str]:
        """Return the plain addresses of all receivers, each once."""
        every = (*self.to, *self.cc, *self.bcc)
        return list(dict.fromkeys(parse_address(each).addr_spec for each in every))


@dataclass(frozen=True, slots=True)
class Posting:
    """A letter ready to be sent: the envelope and the bytes, which are no part of its repr."""

    sender: str
    receivers: Sequence[str]
    message_id: str
    content: bytes = field(repr=False)


def message_id_of(letter: Letter, sender: str, key: str | None) -> str:
    """
    Return the Message-ID: of *key* and the receivers, so that a repeated step has the same.

    Without a key it is a new one each time.
    """
    domain = parse_address(sender).domain
    if key is None:
        return make_msgid(domain=domain)
    words = "\0".join((key, *sorted(letter.receivers())))
    return f"<{hashlib.sha256(words.encode()).hexdigest()[:40]}@{domain}>"


def posting_of(
    letter: Letter, sender: str, *, key: str | None, files_from: str | None, limit: int
) -> Posting:
    """Return the letter as bytes, at most *limit*. Nothing larger is put together on the way."""
    message = EmailMessage(policy=WIRE)
    message_id = message_id_of(letter, sender, key)
    for name, value in _headers(letter, sender, message_id):
        message[name] = value
    left = limit - len(letter.text or "") - len(letter.html or "")
    if left < 0:
        raise too_large(limit)
    _add_bodies(message, letter)
    for each in letter.attachments:
        content = each.read(files_from, left)
        left -= len(content)
        main, _, sub = each.content_type.partition("/")
        message.add_attachment(content, maintype=main, subtype=sub, disposition=each.disposition())
    raw = message.as_bytes()
    require_own_headers(message, raw)
    if len(raw) > limit:
        raise too_large(limit)
    return Posting(parse_address(sender).addr_spec, letter.receivers(), message_id, raw)


def _headers(letter: Letter, sender: str, message_id: str) -> Iterator[tuple[str, str]]:
    addresses = {"From": [sender], "To": letter.to, "Cc": letter.cc}
    addresses["Reply-To"] = [letter.reply_to] if letter.reply_to else []
    for name, each in addresses.items():
        if each:
            with refusing(name):
                value = encoded_addresses(map(parse_address, each))
            yield name, value
    yield "Subject", encoded_text(letter.subject)
    yield "Date", format_datetime(localtime())
    yield "Message-ID", message_id
    if letter.in_reply_to:
        yield "In-Reply-To", letter.in_reply_to
    thread = [*letter.references, *([letter.in_reply_to] if letter.in_reply_to else [])]
    if thread:
        yield "References", folded(dict.fromkeys(thread))


def too_large(limit: int) -> AutomateError:
    """Return the error for a mail of more than *limit* bytes."""
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"the mail is larger than {limit} bytes",
        hint="send a link instead of the file, or raise max_message_bytes",
    )


def _add_bodies(message: EmailMessage, letter: Letter) -> None:
    if letter.text is not None:
        message.set_content(_encodable(letter.text))
        if letter.html is not None:
            message.add_alternative(_encodable(letter.html), subtype="html")
    elif letter.html is not None:
        message.set_content(_encodable(letter.html), subtype="html")


def _encodable(text: str) -> str:
    # Half a surrogate pair can't be sent; NUL is not allowed in a mail at all.
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _file_below(files_from: str | None, path: str) -> Path:
    if files_from is None:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "no files may be attached by path",
            hint="set files_from to the folder whose files may be sent",
        )
    folder = Path(files_from).resolve()
    try:
        found = (folder / path).resolve()
        is_file = found.is_relative_to(folder) and found.is_file()
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"there is no file {path[:200]!r} below files_from",
            hint="give its path relative to the folder of the config's files_from",
        )
    return found
