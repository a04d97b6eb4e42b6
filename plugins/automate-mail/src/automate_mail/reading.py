"""Reading: messages as they came, whatever is in them, as plain values."""

from __future__ import annotations

import base64
import re
from email import message_from_bytes
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import collapse_rfc2231_value, getaddresses
from typing import Any

from pydantic import BaseModel, Field

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.addresses import is_message_id, spaced

HEADERS = "BODY.PEEK[HEADER.FIELDS (FROM TO CC SUBJECT DATE MESSAGE-ID IN-REPLY-TO REFERENCES)]"
SUMMARY = f"(UID FLAGS INTERNALDATE RFC822.SIZE {HEADERS})"

_LONGEST_HEADER, _MOST_ADDRESSES, _MOST_PARTS = 2_000, 100, 200
_MOST_IDS = 50  # an answer takes as many
_UID = re.compile(rb"\bUID (\d{1,19})\b")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d{1,19})\b")
_FLAGS = re.compile(rb"\bFLAGS \(([^()]*)\)")
_ARRIVED = re.compile(rb'\bINTERNALDATE "([^"]{1,40})"')


class _Letter(Message):
    """A message whose parameters are read as far as they can be: senders write what they like."""

    def get_param(self, param: str, failobj: Any = None, *args: Any, **options: Any) -> Any:
        """Return the parameter as text, or *failobj* where nothing of it can be read."""
        try:
            found = super().get_param(param, failobj, *args, **options)
        except (ValueError, TypeError):  # a part's number of 5,000 digits
            return failobj
        if not isinstance(found, tuple):
            return found
        try:
            return collapse_rfc2231_value(found)
        except ValueError:  # an encoding that Python can't read, or has for hosts' names
            return found[2]


class Summary(BaseModel):
    """A message in a mailbox, without its body."""

    mailbox: str = Field(description="The mailbox.")
    uid_validity: int = Field(description="The number under which `uid` counts.")
    uid: int = Field(description="The message's number in the mailbox.")
    message_id: str | None = Field(description="Its Message-ID, unless it is malformed.")
    in_reply_to: str | None = Field(description="The Message-ID that it answers.")
    references: list[str] = Field(description="The Message-IDs of its thread.")
    sender: str = Field(description="The address in From, which anybody can write.")
    sender_name: str = Field(description="The name in From.")
    to: list[str] = Field(description="The addresses in To.")
    cc: list[str] = Field(description="The addresses in Cc.")
    subject: str = Field(description="The subject.")
    date: str = Field(description="The Date header, as the sender wrote it.")
    arrived: str = Field(description="When the server got it, in IMAP's form.")
    size: int = Field(description="Its bytes.")
    flags: list[str] = Field(description="Its flags, such as \\Seen.")


class ReadAttachment(BaseModel):
    """A file of a message."""

    filename: str = Field(description="Its name, as the sender wrote it: no path to write to.")
    content_type: str = Field(description="Its media type, as the sender wrote it.")
    size: int = Field(description="Its bytes.")
    base64: str | None = Field(description="Its content, if it was asked for.")


class FetchedMessage(Summary):
    """A message with its bodies and files."""

    text: str = Field(description="The plain text.")
    html: str = Field(description="The HTML, as the sender wrote it: not safe to show.")
    attachments: list[ReadAttachment] = Field(description="The files.")
    truncated: bool = Field(description="True if it is larger than max_message_bytes.")


def summary_of(mailbox: str, validity: int, words: bytes, header: bytes) -> Summary | None:
    """Return the summary in a FETCH answer, or None for an answer about something else."""
    uid, size, flags = _UID.search(words), _SIZE.search(words), _FLAGS.search(words)
    if uid is None:
        return None
    arrived = _ARRIVED.search(words)
    message = BytesHeaderParser().parsebytes(header)
    names = _addresses(message, "From") or [("", "")]
    return Summary(
        mailbox=mailbox,
        uid_validity=validity,
        uid=int(uid[1]),
        message_id=_message_id(message, "Message-ID"),
        in_reply_to=_message_id(message, "In-Reply-To"),
        references=list(filter(is_message_id, _text(message, "References").split()))[-_MOST_IDS:],
        sender=names[0][1],
        sender_name=names[0][0],
        to=[address for _, address in _addresses(message, "To")],
        cc=[address for _, address in _addresses(message, "Cc")],
        subject=_text(message, "Subject"),
        date=_text(message, "Date"),
        arrived=arrived[1].decode("ascii", "replace") if arrived else "",
        size=int(size[1]) if size else 0,
        flags=flags[1].decode("ascii", "replace").split() if flags else [],
    )


def message_of(summary: Summary, raw: bytes, *, contents: bool) -> FetchedMessage:
    """Return the message with its bodies; with *contents* also its files'."""
    try:
        message = message_from_bytes(raw, _class=_Letter)
        found = list(_parts(message))
    except (RecursionError, MessageError):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, f"message {summary.uid} is nested too deep to be read"
        ) from None
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    files = []
    for part, content in found:
        kind = part.get_content_type()
        if kind in texts and part.get_content_disposition() != "attachment":
            texts[kind].append(_decoded(part, content))
        else:
            packed = base64.b64encode(content).decode() if contents else None
            name = _readable(part.get_filename() or "")
            files.append(
                ReadAttachment(filename=name, content_type=kind, size=len(content), base64=packed)
            )
    return FetchedMessage(
        **summary.model_dump(),
        text="\n".join(texts["text/plain"]),
        html="\n".join(texts["text/html"]),
        attachments=files,
        truncated=len(raw) < summary.size,
    )


def _parts(message: Message) -> list[tuple[Message, bytes]]:
    found: list[tuple[Message, bytes]] = []
    for part in message.walk():
        if part.is_multipart():
            continue
        if len(found) == _MOST_PARTS:
            break
        content = part.get_payload(decode=True)
        found.append((part, content if isinstance(content, bytes) else b""))
    return found


def _decoded(part: Message, content: bytes) -> str:
    charset = str(part.get_content_charset() or "utf-8")
    try:
        text = content.decode(charset, "replace")
    except (LookupError, ValueError):
        text = content.decode("utf-8", "replace")
    return _storable(text.replace("\r\n", "\n"))


def _addresses(message: Message, name: str) -> list[tuple[str, str]]:
    # Before the encoded words are decoded: in one may stand a comma that is none of the list's.
    try:
        pairs = getaddresses([_raw(message, name)])[:_MOST_ADDRESSES]
    except RecursionError:  # a comment within a comment, a thousand times
        return []
    return [(_readable(each), _storable(address)) for each, address in pairs if address]


def _text(message: Message, name: str) -> str:
    return _readable(_raw(message, name))


def _message_id(message: Message, name: str) -> str | None:
    text = _text(message, name)
    return text if is_message_id(text) else None


def _raw(message: Message, name: str) -> str:
    value = message.get(name)
    return " ".join(str(value).split())[:_LONGEST_HEADER] if value is not None else ""


def _readable(text: str) -> str:
    """Return a header's text with its encoded words decoded."""
    try:
        pieces = decode_header(text)
    except (HeaderParseError, ValueError):
        return spaced(_storable(text))
    found = ""
    for piece, charset in pieces:
        if isinstance(piece, str):
            found += piece
            continue
        try:
            found += piece.decode(charset or "utf-8", "replace")
        except (LookupError, ValueError):
            found += piece.decode("utf-8", "replace")
    return spaced(_storable(found))


def _storable(text: str) -> str:
    """Return *text* without what JSON and databases don't take."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
