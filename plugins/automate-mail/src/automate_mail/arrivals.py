"""Arrivals: the messages that came into a mailbox since the last look, each once."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.connectors import PolledEvent, PollResult
from automate_mail.imap import ImapSession
from automate_mail.reading import SUMMARY, Summary, summary_of
from automate_mail.search import day_of, imap_date

PAGE = 50


def arrivals(session: ImapSession, mailbox: str, cursor: Any) -> PollResult:
    """
    Return the messages after *cursor*; without one, only the place from which on they count.

    The cursor is UIDVALIDITY and the last UID, and when the newest message came. Once the server
    has numbered the mailbox anew, which UIDVALIDITY tells, the UID says nothing, and the time goes
    on: messages that came later are new, and of those in the very same second those that aren't
    known.
    """
    validity = session.open_mailbox(mailbox)
    if not isinstance(cursor, dict):
        last = session.next_uid() - 1
        newest = summaries(session, mailbox, validity, session.search(["UID", "*"])[-1:])
        return PollResult((), _cursor(validity, last, newest, None))
    renumbered = cursor["uid_validity"] != validity
    if renumbered:
        page, more = _after_renumbering(session, mailbox, validity, cursor)
    else:
        after = cursor["uid"]
        # N:* has the newest message in any case.
        uids = [uid for uid in session.search(["UID", f"{after + 1}:*"]) if uid > after]
        page, more = summaries(session, mailbox, validity, uids[:PAGE]), len(uids) > PAGE
        if not page and uids:
            return PollResult((), {**cursor, "uid": uids[:PAGE][-1]}, more=more)
    last = page[-1].uid if page else cursor["uid"]
    if renumbered and not more:
        # The numbers say nothing of the time: an old message may have a higher one than a new.
        last = max(session.next_uid() - 1, *(each.uid for each in page))
    events = [PolledEvent(f"{validity}-{each.uid}", each.model_dump()) for each in page]
    return PollResult(events, _cursor(validity, last, page, cursor), more=more)


def summaries(session: ImapSession, mailbox: str, validity: int, uids: list[int]) -> list[Summary]:
    """Return the summaries of *uids*, in their order; those that are gone are left out."""
    if not uids:
        return []
    found: dict[int, Summary] = {}
    for words, literals in session.fetch(uids, SUMMARY):
        each = summary_of(mailbox, validity, words, literals[0] if literals else b"")
        if each is not None:
            found[each.uid] = each
    return [found[uid] for uid in uids if uid in found]


def _after_renumbering(
    session: ImapSession, mailbox: str, validity: int, cursor: dict[str, Any]
) -> tuple[list[Summary], bool]:
    """Return the first page of those that came after the cursor's time, by their new numbers."""
    at, day = _moment(cursor["at"]), day_of(cursor["at"])
    # A day more: SINCE goes by the server's zone, and the time by its own.
    since = ["SINCE", imap_date(day - timedelta(days=1))] if day is not None else ["ALL"]
    new: list[Summary] = []
    uids = session.search(since)
    for begin in range(0, len(uids), PAGE):
        for each in summaries(session, mailbox, validity, uids[begin : begin + PAGE]):
            came = _moment(each.arrived)
            later = at is None or came is None or came > at
            if later or (came == at and _digest(each) not in cursor["known"]):
                new.append(each)
        if len(new) > PAGE:
            return new[:PAGE], True
    return new, False


def _cursor(
    validity: int, uid: int, page: list[Summary], before: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the cursor after *page*: the newest time, and the messages of that second."""
    at = before["at"] if before is not None else ""
    known = list(before["known"]) if before is not None else []
    for each in page:
        now, then = _moment(each.arrived), _moment(at)
        if now is None or (then is not None and now < then):
            continue
        if then is None or now > then:
            at, known = each.arrived, []
        known.append(_digest(each))
    return {"uid_validity": validity, "uid": uid, "at": at, "known": known[-500:]}


def _digest(summary: Summary) -> str:
    words = (summary.message_id or "", summary.sender, summary.subject, summary.date, summary.size)
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _moment(internal_date: str) -> datetime | None:
    day = day_of(internal_date)
    rest = internal_date.strip().partition(" ")[2]
    try:
        return datetime.strptime(f"{day} {rest}", "%Y-%m-%d %H:%M:%S %z") if day else None
    except ValueError:
        return None
