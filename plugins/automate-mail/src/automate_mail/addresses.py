"""Addresses and identifiers that can stand in a header and in an SMTP command."""

from __future__ import annotations

import re
from email.headerregistry import Address
from typing import Annotated
from unicodedata import category

from pydantic import AfterValidator, Field

# A dot-atom, as RFC 5321 has it; quoted local parts are refused, as much software errs there.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NAMED = re.compile(r'(?:"(?P<quoted>[^"\\<>]*)"\s*|(?P<name>[^"<>]*))<(?P<address>[^<>]*)>')
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,900}>")
_BREAKING = {"Cc", "Zl", "Zp", "Cs"}
_LONGEST_LOCAL, _LONGEST_ADDRESS = 64, 254


def one_line(text: str) -> str:
    """Return *text* if it has no control character and no line break, as a header needs it."""
    if any(category(char) in _BREAKING for char in text):
        raise ValueError("line breaks and control characters can't stand in a header")
    return text


def spaced(text: str) -> str:
    """Return *text* on one line: each line break, blank and control character as one space."""
    return " ".join("".join(" " if category(c) in _BREAKING else c for c in text).split())


def is_message_id(text: str) -> bool:
    """Return True for ``<text@host>`` that no program reads as something else."""
    return _MESSAGE_ID.fullmatch(text) is not None and "=?" not in text


def parse_address(text: str) -> Address:
    """Return the address of ``a@b.example`` or ``Name <a@b.example>``; raise ValueError."""
    one_line(text)
    named = _NAMED.fullmatch(text.strip())
    name = (named["quoted"] or named["name"] or "").strip() if named else ""
    plain = named["address"] if named else text.strip()
    local, at, domain = plain.rpartition("@")
    # A program that reads an address decodes encoded words (RFC 2047) in it as well.
    if not at or "=?" in local or not _LOCAL.fullmatch(local) or len(local) > _LONGEST_LOCAL:
        raise ValueError("is no mail address: use a@b.example, or Name <a@b.example>")
    try:
        ascii_domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("has a domain that can't be written") from None
    if not all(_LABEL.fullmatch(label) for label in ascii_domain.split(".")):
        raise ValueError("has a domain that can't be one")
    if len(local) + 1 + len(ascii_domain) > _LONGEST_ADDRESS:
        raise ValueError(f"is longer than {_LONGEST_ADDRESS} characters")
    return Address(name, local, ascii_domain)


def _checked_address(text: str) -> str:
    parse_address(text)
    return text


def _checked_message_id(text: str) -> str:
    if not is_message_id(text):
        raise ValueError("is no Message-ID: it looks like <text@host>")
    return text


HeaderText = Annotated[str, Field(max_length=900), AfterValidator(one_line)]
MailAddress = Annotated[str, Field(max_length=500), AfterValidator(_checked_address)]
MessageId = Annotated[str, Field(max_length=902), AfterValidator(_checked_message_id)]
