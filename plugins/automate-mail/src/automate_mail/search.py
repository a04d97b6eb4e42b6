"""Searches: typed criteria as the words of IMAP."""

from __future__ import annotations

import re
from datetime import date

from pydantic import BaseModel, ConfigDict, Field

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.addresses import HeaderText, MessageId
from automate_mail.imap import quoted

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Criteria(BaseModel):
    """The messages to find: those that fit all that is said."""

    model_config = ConfigDict(extra="forbid")

    mailbox: HeaderText = Field("INBOX", min_length=1, description="The mailbox to look in.")
    sender: HeaderText | None = Field(None, description="A part of the sender.")
    to: HeaderText | None = Field(None, description="A part of a receiver.")
    subject: HeaderText | None = Field(None, description="A part of the subject.")
    body: HeaderText | None = Field(None, description="A part of the body.")
    message_id: MessageId | None = Field(None, description="The Message-ID.")
    since: date | None = Field(None, description="The first day on which it came.")
    before: date | None = Field(None, description="The day before which it came.")
    seen: bool | None = Field(None, description="Read, or not read.")
    flagged: bool | None = Field(None, description="Flagged, or not flagged.")
    answered: bool | None = Field(None, description="Answered, or not answered.")
    larger_than: int | None = Field(None, ge=0, lt=2**32, description="More bytes than this.")
    smaller_than: int | None = Field(None, ge=0, lt=2**32, description="Fewer bytes than this.")
    limit: int = Field(50, ge=1, le=200, description="The most messages, the newest first.")

    def words(self) -> tuple[list[str], str | None]:
        """
        Return the words of the search, and the text that goes as a literal after the last.

        A command takes one literal, and text that isn't ASCII needs one.
        """
        words, literal = _flags(self), None
        texts = {"FROM": self.sender, "TO": self.to, "SUBJECT": self.subject, "BODY": self.body}
        if self.message_id is not None:
            words += ["HEADER", "Message-ID", quoted(self.message_id)]
        for name, text in texts.items():
            if text is not None and text.isascii():
                words += [name, quoted(text)]
        for name, text in texts.items():
            if text is not None and not text.isascii():
                if literal is not None:
                    raise AutomateError(
                        ErrorCodes.INVALID_ARGUMENT,
                        "a search takes one text with letters beyond ASCII",
                        hint="search for one of them, and look through what is found",
                    )
                words, literal = [*words, name], text
        return words or ["ALL"], literal


def imap_date(day: date) -> str:
    """Return *day* as IMAP writes it: ``05-Nov-2026``."""
    return f"{day.day:02}-{_MONTHS[day.month - 1]}-{day.year:04}"


def day_of(internal_date: str) -> date | None:
    """Return the day of an INTERNALDATE such as ``05-Nov-2026 10:11:12 +0000``."""
    found = re.match(r"\s?(\d{1,2})-([A-Za-z]{3})-(\d{4})", internal_date)
    if found is None or found[2].title() not in _MONTHS:
        return None
    try:
        return date(int(found[3]), _MONTHS.index(found[2].title()) + 1, int(found[1]))
    except ValueError:
        return None


def _flags(criteria: Criteria) -> list[str]:
    words = []
    for name in ("seen", "flagged", "answered"):
        wanted = getattr(criteria, name)
        if wanted is not None:
            words.append(name.upper() if wanted else f"UN{name.upper()}")
    if criteria.since is not None:
        words += ["SINCE", imap_date(criteria.since)]
    if criteria.before is not None:
        words += ["BEFORE", imap_date(criteria.before)]
    if criteria.larger_than is not None:
        words += ["LARGER", str(criteria.larger_than)]
    if criteria.smaller_than is not None:
        words += ["SMALLER", str(criteria.smaller_than)]
    return words
