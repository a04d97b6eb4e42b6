"""Arrivals: the messages that came into a mailbox since the last look, each once."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.plugins.connectors import PolledEvent, PollResult
from automate_mail.imap import ImapSession
from automate_mail.reading import SUMMARY, Summary, summary_of
from automate_mail.search import day_of, imap_date

PAGE = 50


def arrivals(session: ImapSession, mailbox: str, cursor: Any, *, account: str) -> PollResult:
    """
    Return the messages after *cursor*; without one, only the place from which on they count.

    *account* is whose mailbox it is. Another one may have the same numbers, and counts as one that
    was numbered anew.

    The cursor is UIDVALIDITY and the last UID, and when the newest message came. Once the server
    has numbered the mailbox anew, which UIDVALIDITY tells, the UID says nothing, and the time goes
    on for the messages that are there: those that came later are new, and of those in the very
    same second those that aren't known. ``old`` keeps that time until they all were looked at.
    """
    validity = session.open_mailbox(mailbox)
    of = hashlib.sha256(f"{account}\0{mailbox}".encode()).hexdigest()[:16]
    if not isinstance(cursor, dict):
        last = session.next_uid() - 1
        newest = summaries(session, mailbox, validity, session.search(["UID", "*"])[-1:])
        return PollResult((), {**_cursor(validity, last, newest, None), "of": of})
    if (cursor["uid_validity"], cursor.get("of", of)) != (validity, of):
        # A second time, before the first one was gone through, goes by the first time as well.
        known = cursor.get("old") or cursor
        old = {"at": known["at"], "known": known["known"], "until": session.next_uid() - 1}
        cursor = {**cursor, "uid_validity": validity, "uid": 0, "old": old}
    uids = _unseen(session, cursor)
    looked_at, more = uids[:PAGE], len(uids) > PAGE
    page = summaries(session, mailbox, validity, looked_at)
    page = [each for each in page if _is_new(each, cursor.get("old"))]
    last = looked_at[-1] if looked_at else cursor["uid"]
    following = _cursor(validity, last, page, cursor)
    if old := cursor.get("old"):
        if more:
            following["old"] = old
        else:
            following["uid"] = max(last, old["until"])
    events = [PolledEvent(f"{of}-{validity}-{each.uid}", each.model_dump()) for each in page]
    return PollResult(events, {**following, "of": of}, more=more)


def _unseen(session: ImapSession, cursor: dict[str, Any]) -> list[int]:
    """Return the numbers after that of the cursor, without those that are surely old."""
    after, old = cursor["uid"], cursor.get("old")
    found: list[int] = []
    if old and after < old["until"]:
        day = day_of(old["at"])
        # A day more: SINCE goes by the server's zone, and the time by its own.
        since = ["SINCE", imap_date(day - timedelta(days=1))] if day is not None else []
        found = session.search(["UID", f"{after + 1}:{old['until']}", *since])
        after = old["until"]
    # N:* has the newest message in any case.
    return found + [uid for uid in session.search(["UID", f"{after + 1}:*"]) if uid > after]


def _is_new(summary: Summary, old: dict[str, Any] | None) -> bool:
    """Return True unless a message of an *old* numbering came before its time, or is known."""
    if old is None or summary.uid > old["until"]:
        return True
    at, came = _moment(old["at"]), _moment(summary.arrived)
    if at is None or came is None or came > at:
        return True
    return came == at and _digest(summary) not in old["known"]


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
