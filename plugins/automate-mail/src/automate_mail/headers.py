"""
Headers: values as they stand on the wire, and a look at what was written.

The standard library reads a value before it writes it, and decodes the encoded words (RFC 2047) in
it: a stranger's ``=?utf-8?q?a=0D=0AX:_1?=`` would end the header. Nothing here is read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy, default
from itertools import zip_longest
from urllib.parse import quote

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.addresses import one_line

_FOLD = "\r\n "
_WORD_BYTES = 42  # an encoded word has 75 characters at most
_PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")
_QUOTABLE = re.compile(r"[ !#-\[\]-~]+")  # without a quote and a backslash
_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+(?: [A-Za-z0-9_.-]+)*")
_VALUE = re.compile(r"[ -~]*(?:\r\n [ -~]+)*")
_LONGEST_PLAIN, _LONGEST_PARAMETER = 900, 60
_FIELDS = {"from": "sender", "content-disposition": "filename"}


class WrittenHeaders(EmailPolicy):
    """Writes the value of a header as it is, and refuses what isn't printable ASCII."""

    def header_store_parse(self, name: str, value: str) -> tuple[str, str]:
        """Return both, if the value can stand in a header."""
        if not _VALUE.fullmatch(value):
            raise _unwritable(name)
        return name, value

    def header_fetch_parse(self, name: str, value: str) -> str:
        """Return the value."""
        return value

    def fold(self, name: str, value: str) -> str:
        """Return the line; who wrote the value has folded it."""
        return f"{name}: {value}{self.linesep}"

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return the line as bytes."""
        return self.fold(name, value).encode("ascii")


# 7bit, as not each server takes 8BITMIME.
WIRE = WrittenHeaders(linesep=SMTP.linesep, cte_type="7bit")


def encoded_text(text: str) -> str:
    """Return *text* as a header's value that each mail program reads as this text."""
    if not text or (_PLAIN.fullmatch(text) and "=?" not in text and len(text) <= _LONGEST_PLAIN):
        return text
    return _encoded_words(text)


def encoded_addresses(addresses: Iterable[Address]) -> str:
    """Return the addresses as a header's value, each on a line of its own."""
    return f",{_FOLD}".join(map(_encoded_address, addresses))


def encoded_attachment(filename: str) -> str:
    """Return the value of Content-Disposition for a file with this name (RFC 2231)."""
    if _FILE_NAME.fullmatch(filename) and len(filename) <= _LONGEST_PARAMETER:
        return f'attachment; filename="{filename}"'
    pieces = re.findall(
        rf"(?:%..|[^%]){{1,{_LONGEST_PARAMETER}}}", "utf-8''" + quote(filename, safe="")
    )
    if len(pieces) == 1:
        return f"attachment;{_FOLD}filename*={pieces[0]}"
    return "attachment" + "".join(
        f";{_FOLD}filename*{number}*={piece}" for number, piece in enumerate(pieces)
    )


def folded(words: Iterable[str]) -> str:
    """Return the words as a header's value, each on a line of its own."""
    return _FOLD.join(words)


def require_own_headers(message: EmailMessage, raw: bytes) -> None:
    """
    Read the finished mail *raw* back; raise ``INVALID_ARGUMENT`` if it isn't what *message* says.

    Each part has exactly the headers that were set, and nothing that a mail program decodes in
    them is a line break or a control character.
    """
    read = message_from_bytes(raw, policy=default)
    # A header that is too much was written by the value before it.
    before = "Subject"
    for wanted, found in zip_longest(_headers_of(message), _headers_of(read)):
        if wanted is None or found is None or wanted[:2] != found[:2]:
            raise _unwritable(before)
        before = wanted[1]
        if wanted != found:
            raise _unwritable(before)
    for part in read.walk():
        for name, value in part.items():
            with refusing(name):
                one_line(str(value))


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn what is wrong with a value of the header *name* into ``INVALID_ARGUMENT``."""
    try:
        yield
    except (ValueError, MessageError, LookupError, AttributeError, TypeError, RecursionError):
        raise _unwritable(name) from None  # the parser of the standard library falls over some


def _unwritable(name: str) -> AutomateError:
    field = _FIELDS.get(name.lower(), name.lower().replace("-", "_"))
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        f"{field}: it has what can't stand in the header {name} of a mail",
        hint="leave out line breaks, control characters and encoded words (=?...?=)",
    )


def _headers_of(message: EmailMessage) -> Iterator[tuple[int, str, str]]:
    for number, part in enumerate(message.walk()):
        for name, value in part.raw_items():
            yield number, name, value


def _encoded_words(text: str) -> str:
    return _FOLD.join(f"=?utf-8?b?{base64.b64encode(each).decode()}?=" for each in _pieces(text))


def _pieces(text: str) -> Iterator[bytes]:
    """Yield *text* in pieces that fit an encoded word; none ends within a character."""
    piece = b""
    for char in text:
        more = char.encode("utf-8", "replace")
        if len(piece) + len(more) > _WORD_BYTES:
            yield piece
            piece = b""
        piece += more
    yield piece


def _encoded_address(address: Address) -> str:
    name, plain = address.display_name, f"<{address.addr_spec}>"
    if not name:
        return address.addr_spec
    if _QUOTABLE.fullmatch(name) and "=?" not in name and len(name) <= _LONGEST_PLAIN:
        return f'"{name}" {plain}'
    return f"{_encoded_words(name)}{_FOLD}{plain}"
