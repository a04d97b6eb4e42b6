"""The poller: it calls the polls that workflows listen to, and emits their events."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    StorageError,
    printed,
)
from automate_kernel.base.forks import renew_in_children
from automate_kernel.operations.context import Call, calling
from automate_kernel.operations.error_mapping import normalizing
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.invoker import Invoker
from automate_kernel.outbox.item import NewItem, bounded_seconds, new_id
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage
from automate_kernel.storage.shortage import warn_of
from automate_kernel.storage.tables import POLL
from automate_kernel.storage.values import encode_json, storable
from automate_kernel.triggers.polls.spec import PollResult, PollSpec, checked_result
from automate_kernel.triggers.webhooks.ledger import ReplayLedger

__all__ = ["Poll", "Poller", "Polls"]

logger: logging.Logger = get_logger(__name__)

Demand = Callable[[], Iterable[tuple[str, "str | None"]]]
"""A function that returns the names of events, or patterns, that are listened to, by tenant."""

_THREADS = 4
_GRACE_SECONDS = 30.0
# A worker's claim is renewed while it calls, so that it ends soon after the worker has died. As
# with leases, others give the holder a moment before they take one over: a database that was away
# keeps everybody from renewing.
_CLAIM_SECONDS, _RENEW_SECONDS, _MOMENT = 15.0, 4.0, timedelta(seconds=5)
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 5.0, 3_600.0
_MOST_CURSOR = 65_536
_LONGEST_ERROR = 2_000
_PATTERN = "*?["


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """
    A poll of a connector for a tenant's workflows, or (None) those of everybody, with its state.

    After *failures* in a row it is called less often, until `next_at`; *error_code* and *error* are
    those of the last failure. A worker calls it now if *claimed_until* is still to come.
    """

    id: str
    connector: str
    spec: PollSpec
    tenant_id: str | None = None
    next_at: datetime | None = None
    polled_at: datetime | None = None
    event_at: datetime | None = None
    """The time of the last poll that had events."""
    failures: int = 0
    error_code: str | None = None
    error: str | None = None
    paused_at: datetime | None = None
    claimed_until: datetime | None = None

    @property
    def name(self) -> str:
        """The name of its events: ``connector.poll``."""
        return f"{self.connector}.{self.spec.name}"

    @property
    def state(self) -> str:
        """``paused``, ``failing``, ``new`` or ``ok``."""
        if self.paused_at is not None:
            return "paused"
        if self.failures:
            return "failing"
        return "new" if self.polled_at is None else "ok"


class Polls:
    """The polls that workflows listen to: find, pause, resume, call them now, start them over."""

    def __init__(self, storage: Storage, operations: Invoker, demand: Demand) -> None:
        self._storage, self._operations, self._demand = storage, operations, demand

    def wanted(self) -> dict[str, Poll]:
        """Return the polls that some workflow listens to, by id, without their state."""
        found: dict[str, Poll] = {}
        for pattern, tenant_id in dict.fromkeys(self._demand()):
            for connector, spec in self._matching(pattern):
                made = Poll(
                    id=_id(connector, spec.name, tenant_id),
                    connector=connector,
                    spec=spec,
                    tenant_id=tenant_id,
                )
                found[made.id] = made
        return found

    def unmatched(self) -> dict[str, str]:
        """Return the events that name a connector and no poll of it, with its key."""
        found: dict[str, str] = {}
        for pattern, _ in dict.fromkeys(self._demand()):
            connector = self._connector_in(pattern)
            if connector is not None and not self._matching(pattern):
                found[pattern] = connector
        return found

    def find(self, listening: Iterable[tuple[str, str | None]] | None = None) -> list[Poll]:
        """
        Find the polls that some workflow listens to, with their state.

        With *listening* only those of these events: pairs of a name, or a pattern, and a tenant.
        """
        wanted = self.wanted()
        if listening is not None:
            pairs = list(listening)
            wanted = {
                key: each
                for key, each in wanted.items()
                if any(each.tenant_id == its and fnmatchcase(each.name, one) for one, its in pairs)
            }
        with self._storage.begin(atomic=False) as rows:
            states = self.states(rows, wanted)
        found = [with_state(each, states.get(key)) for key, each in wanted.items()]
        return sorted(found, key=lambda each: (each.name, each.tenant_id or ""))

    def states(self, rows: Rows, wanted: Iterable[str]) -> dict[str, Row]:
        """Return the rows of polls by id."""
        return {row["id"]: row for row in rows.select(POLL, [Where("id", "in", sorted(wanted))])}

    def pause(self, name: str, *, tenant_id: str | None = None) -> int:
        """Let the poll ``connector.poll`` rest; return 0 if it did already."""
        changes = {"paused_at": Now()}
        return self._change(name, tenant_id, changes, Where("paused_at", "eq", None))

    def resume(self, name: str, *, tenant_id: str | None = None) -> int:
        """Let a paused poll go on from its cursor, at once; return 0 if it was not paused."""
        changes = {"paused_at": None, "next_at": Now()}
        return self._change(name, tenant_id, changes, Where("paused_at", "ne", None))

    def call_now(self, name: str, *, tenant_id: str | None = None) -> int:
        """Let the poll be called at once, also after failures; return 0 if it is paused."""
        changes = {"next_at": Now()}
        return self._change(name, tenant_id, changes, Where("paused_at", "eq", None))

    def start_over(self, name: str, *, tenant_id: str | None = None) -> int:
        """
        Forget the poll's cursor and its failures: the next call is its first.

        Events that were emitted in the last 30 days are known by their ids, and not emitted again.
        """
        changes = {
            "poll_cursor": None, "failures": 0, "error_code": None, "error": None,
            "next_at": Now(), "claim_token": None, "claimed_until": None,
        }  # fmt: skip
        return self._change(name, tenant_id, changes)

    def _change(self, name: str, tenant_id: str | None, changes: Row, *where: Where) -> int:
        connector, _, poll = printed(name).partition(".")
        key = _id(connector, poll, tenant_id)
        wanted = self.wanted()
        if key not in wanted:
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"no workflow{_whose(tenant_id)} listens to a poll {name!r}",
                hint=_listened_to(name, tenant_id, wanted.values()),
            )
        with self._storage.begin() as rows:
            begin(rows, [wanted[key]])
            return rows.update(POLL, [Where("id", "eq", key), *where], changes)

    def _matching(self, pattern: str) -> list[tuple[str, PollSpec]]:
        """Return the polls whose events *pattern* means; loads no other connector."""
        connector = self._connector_in(pattern)
        if connector is None:
            return []
        try:
            cls = self._operations.sources["connector"].get(connector)
        except AutomateError:
            return []  # reported with the plugins, and by each of its actions
        return [
            (connector, spec)
            for spec in cls.polls()  # type: ignore[attr-defined]
            if fnmatchcase(f"{connector}.{spec.name}", pattern)
        ]

    def _connector_in(self, pattern: str) -> str | None:
        connector, dot, _ = pattern.partition(".")
        named = dot and not any(each in connector for each in _PATTERN)
        return connector if named and connector in self._operations.sources["connector"] else None


class _ClaimLostError(Exception):
    """The claim of a poll has run out, and another worker has it."""


class Poller:
    """
    Calls the polls that are due: each by one worker of many, outside of any transaction.

    Its events, their ids and the new cursor are saved in one transaction, if the claim is still
    this worker's. So a worker that dies at any point loses no event and repeats none.
    """

    def __init__(
        self,
        polls: Polls,
        storage: Storage,
        outbox: OutboxStore,
        operations: Invoker,
        new_item: Callable[..., NewItem],
    ) -> None:
        self._polls, self._storage, self._outbox = polls, storage, outbox
        self._operations, self._new_item = operations, new_item
        self._ledger = ReplayLedger(storage)
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget what is claimed: threads of another process call it."""
        self._claimed: runtime.SimpleQueue[tuple[Poll, Row] | None] = runtime.SimpleQueue()
        self._lock = runtime.Lock()
        self._busy = self._threads = 0
        # What is claimed here: by token the poll's id, and the time until which it is renewed.
        self._held: dict[str, tuple[str, float]] = {}
        self._renewing = False
        # Two times by the database's clock, a moment apart at least.
        self._looks: list[datetime] = []

    def tick(self) -> int:
        """Claim the polls that are due, and let threads of this worker call them."""
        with self._lock:
            free = _THREADS - self._busy
        claimed = self._claim(free, seconds=_CLAIM_SECONDS) if free > 0 else []
        for each in claimed:
            # A call that hangs is another worker's in the end.
            longest = each[0].spec.timeout_seconds + _GRACE_SECONDS
            self._held[each[1]["claim_token"]] = each[0].id, runtime.monotonic() + longest
            self._claimed.put(each)
        with self._lock:
            self._busy += len(claimed)
            while self._threads < self._busy:
                # A daemon: a service that hangs keeps no worker from ending. Another worker goes on
                # once the claim has run out. It may fail to start: then the next tick tries again.
                runtime.Thread(target=self._work, name="automate-poll", daemon=True).start()
                self._threads += 1
        self._keep_claims()
        return len(claimed)

    def run_due(self) -> int:
        """Call the polls that are due in this thread, page after page; for tests and scripts."""
        calls, claimed = 0, self._claim(None)
        while claimed:
            calls += len(claimed)
            more = {each.id for each, row in claimed if self._call(each, row)}
            # Only these: the time of another may have come meanwhile, again and again.
            claimed = self._claim(None, more) if more else []
        return calls

    def close(self) -> None:
        """Let the threads end, each after its call."""
        with self._lock:
            threads, self._threads = self._threads, 0
        for _ in range(threads):
            self._claimed.put(None)

    def _work(self) -> None:
        while (claimed := self._claimed.get()) is not None:
            poll, row = claimed
            try:
                self._call(poll, row)
            except StorageError as error:
                warn_of(logger, error, "poll %s: its result could not be saved: %s", _told(poll))
            except Exception:
                logger.exception("poll %s: its result could not be saved", _told(poll))
            finally:
                self._held.pop(row["claim_token"], None)
                with self._lock:
                    self._busy -= 1

    # -- claiming ----------------------------------------------------------------------------

    def _keep_claims(self) -> None:
        """Let a thread renew the claims of this worker's calls, as long as there are any."""
        # Not whoever looks at what is due: a worker that stops looks no more, and its calls go on.
        with self._lock:
            if self._to_renew() and not self._renewing:
                runtime.Thread(target=self._renew, name="automate-claims", daemon=True).start()
                self._renewing = True

    def _to_renew(self) -> dict[str, str]:
        now = runtime.monotonic()
        return {token: key for token, (key, end) in list(self._held.items()) if now < end}

    def _renew(self) -> None:
        while True:
            runtime.sleep(_RENEW_SECONDS)
            with self._lock:
                held = self._to_renew()
                self._renewing = bool(held)
            if not held:
                return
            try:
                with self._storage.begin() as rows:
                    for token, key in sorted(held.items()):
                        its = [Where("id", "eq", key), Where("claim_token", "eq", token)]
                        rows.update(POLL, its, {"claimed_until": Now(_CLAIM_SECONDS)})
            except Exception as error:
                warn_of(logger, error, "the claims of polls could not be renewed: %s")

    def _over_by(self, now: datetime) -> datetime | None:
        """Return the time by which a claim was over that may be taken over *now*, if there is."""
        self._looks = [each for each in self._looks if each <= now]  # it may have been set back
        if not self._looks or now - self._looks[-1] >= _MOMENT:
            self._looks = [*self._looks[-1:], now]
        return self._looks[0] if len(self._looks) > 1 else None

    def _claim(
        self,
        most: int | None,
        ids: Collection[str] | None = None,
        *,
        seconds: float | None = None,
    ) -> list[tuple[Poll, Row]]:
        """Claim due polls, for *seconds*; by default for as long as their calls may take."""
        wanted = self._polls.wanted()
        if ids is not None:
            wanted = {key: each for key, each in wanted.items() if key in ids}
        if not wanted:
            return []
        with self._storage.begin(atomic=False) as rows:
            now, states = rows.now(), self._polls.states(rows, wanted)
        if missing := [each for key, each in wanted.items() if key not in states]:
            with self._storage.begin() as rows:
                begin(rows, missing)
                now, states = rows.now(), self._polls.states(rows, wanted)
        over_by = now if seconds is None else self._over_by(now)
        due = sorted(
            (row for row in states.values() if _is_due(row, now, over_by, wanted[row["id"]].spec)),
            key=_waiting_since,
        )
        claimed = []
        for row in due[:most]:
            poll, token = wanted[row["id"]], new_id()
            until = Now(seconds or poll.spec.timeout_seconds + _GRACE_SECONDS)
            # Compare and set: of all workers that see it due, one claims it.
            its = [
                Where("id", "eq", poll.id),
                Where("claim_token", "eq", row["claim_token"]),
                Where("next_at", "eq", row["next_at"]),
                Where("paused_at", "eq", None),
            ]
            with self._storage.begin() as rows:
                changes = {"claim_token": token, "claimed_until": until}
                if rows.update(POLL, its, changes):
                    claimed.append((poll, {**row, "claim_token": token}))
        return claimed

    # -- one call ----------------------------------------------------------------------------

    def _call(self, poll: Poll, row: Row) -> bool:
        """Call a claimed poll and save its result; return True if it has more at once."""
        try:
            result = self._result(poll, row["poll_cursor"])
            new = self._save(poll, row, result)
        except _ClaimLostError:
            text = "poll %s took longer than its claim; its result is dropped"
            logger.warning(text, _told(poll))
        except BaseException as error:  # SystemExit too: a plugin must not end its process
            if is_interruption(error):
                raise
            self._fail(poll, row, error)
        else:
            if new:
                logger.info("poll %s: %d new events", _told(poll), new)
            return result.more
        return False

    def _result(self, poll: Poll, cursor: Any) -> PollResult:
        instance = self._operations.instance("connector", poll.connector)
        method = getattr(instance, poll.spec.attribute)
        timeout = poll.spec.timeout_seconds
        with (
            calling(Call(poll.name, tenant_id=poll.tenant_id)),
            normalizing(instance),
            self._operations.secrets.session(),
        ):
            if inspect.iscoroutinefunction(method):
                result = self._operations.portal.run(method(cursor), timeout)
            else:  # on a thread, which is abandoned when its time is up
                result = self._operations.timed_calls.run(
                    partial(method, cursor), timeout, key=("poll", poll.id)
                )
                if inspect.isawaitable(result):
                    result = self._operations.portal.run(result, timeout)
            return checked_result(poll.spec, result)

    def _save(self, poll: Poll, row: Row, result: PollResult) -> int:
        """Save the new cursor and emit what is new, in one transaction; return how many."""
        cursor = _stored_cursor(poll, result.cursor)
        moved = cursor != row["poll_cursor"]
        items: dict[str, NewItem] = {}
        for event in result.events:
            if event.id not in items:
                items[event.id] = self._new_item(
                    poll.name,
                    event.payload,
                    source=poll.connector,
                    tenant_id=poll.tenant_id,
                    id=new_id(),
                )
        with self._storage.begin() as rows:
            changes: Row = {
                "poll_cursor": cursor,
                "polled_at": Now(),
                "next_at": Now(0.0 if result.more and moved else poll.spec.every_seconds),
                "failures": 0,
                "error_code": None,
                "error": None,
                "claim_token": None,
                "claimed_until": None,
            }
            # First, as it locks the row: whoever lost the claim waits here, and then changes
            # nothing.
            if not rows.update(POLL, _held(poll, row), changes):
                raise _ClaimLostError("the claim of the poll has run out")
            trigger = f"poll:{poll.spec.name}"
            deliveries = {event_id: item.id for event_id, item in items.items()}
            new = self._ledger.remember_all(
                rows, poll.connector, trigger, deliveries, tenant_id=poll.tenant_id
            )
            if new:
                at_once: Row = {"next_at": Now()} if result.more else {}
                rows.update(POLL, [Where("id", "eq", poll.id)], {"event_at": Now(), **at_once})
                fresh = [item for event_id, item in items.items() if event_id in new]
                self._outbox.enqueue_many(fresh, transaction=rows.native)
        if result.more and not moved and not new:
            # The next call would be this one again, and so on for ever.
            logger.warning(
                "poll %s has more, but neither a new cursor nor a new event; it is called again "
                "in %g s",
                _told(poll), poll.spec.every_seconds,
            )  # fmt: skip
        return len(new)

    def _fail(self, poll: Poll, row: Row, error: BaseException) -> None:
        clean = self._operations.clean_error(error, f"poll {poll.name!r}")
        failures = row["failures"] + 1
        wait = max(_backoff(poll.spec, failures), bounded_seconds(clean.retry_after or 0.0))
        log = logger.warning if failures == 1 else logger.info
        log("poll %s failed, next try in %.0f s: %s", _told(poll), wait, clean)
        changes: Row = {
            "failures": failures,
            "error_code": clean.code.value,
            "error": storable(str(clean), _LONGEST_ERROR),
            "polled_at": Now(),
            "next_at": Now(wait),
            "claim_token": None,
            "claimed_until": None,
        }
        with self._storage.begin() as rows:
            rows.update(POLL, _held(poll, row), changes)


def _whose(tenant_id: str | None) -> str:
    return "" if tenant_id is None else f" of the tenant {tenant_id!r}"


def _told(poll: Poll) -> str:
    """Return the name for the log: the polls of all tenants have one name."""
    return f"{poll.name}{_whose(poll.tenant_id)}"


def _listened_to(name: str, tenant_id: str | None, polls: Iterable[Poll]) -> str:
    """Return a hint for who means a poll *name* that no workflow of this tenant listens to."""
    own = sorted({each.name for each in polls if each.tenant_id == tenant_id})
    others = {each.tenant_id for each in polls if each.name == name}
    if tenant_id is None and others:
        return "workflows of tenants do: say which tenant"
    if None in others:
        return "a workflow of no tenant does: leave the tenant out"
    return f"there are: {', '.join(own) or 'none'}"


def begin(rows: Rows, polls: Sequence[Poll]) -> None:
    """Add the rows of polls that are seen for the first time; they are due at once."""
    rows.insert(
        POLL,
        [
            {
                "id": each.id,
                "connector": each.connector,
                "trigger_name": each.spec.name,
                "tenant_id": each.tenant_id,
                "next_at": Now(),
                "failures": 0,
                "created_at": Now(),
            }
            for each in polls
        ],
    )


def with_state(poll: Poll, row: Row | None) -> Poll:
    """Return *poll* with the state in its row."""
    names = (
        "next_at", "polled_at", "event_at", "failures", "error_code", "error", "paused_at",
        "claimed_until",
    )  # fmt: skip
    return poll if row is None else replace(poll, **{name: row[name] for name in names})


def _held(poll: Poll, row: Row) -> list[Where]:
    return [Where("id", "eq", poll.id), Where("claim_token", "eq", row["claim_token"])]


def _is_due(row: Row, now: datetime, over_by: datetime | None, spec: PollSpec) -> bool:
    free = row["claim_token"] is None
    free = free or (over_by is not None and row["claimed_until"] <= over_by)
    polled_at = row["polled_at"]
    # Its connector may ask for a shorter time than that with which the row was written.
    sooner = (
        not row["failures"]
        and polled_at is not None
        and polled_at + timedelta(seconds=spec.every_seconds) <= now
    )
    return row["paused_at"] is None and free and (row["next_at"] <= now or sooner)


def _waiting_since(row: Row) -> datetime:
    since: datetime = row["next_at"]
    return since


def _backoff(spec: PollSpec, failures: int) -> float:
    doubled = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 20)
    return max(spec.every_seconds, min(doubled, _LONGEST_BACKOFF_SECONDS))


def _stored_cursor(poll: Poll, cursor: Any) -> Any:
    """Return *cursor* as it comes back from every database; raises `PayloadError`."""
    name = f"cursor of the poll {poll.name!r}"
    try:
        text = encode_json(cursor, name, _MOST_CURSOR)
    except PayloadError as error:
        hint = "keep a time or a number, not what was seen: event ids are remembered"
        raise PayloadError(error.message, hint=f"{error.hint}; {hint}") from None
    return json.loads(text)


def _id(connector: str, poll: str, tenant_id: str | None) -> str:
    parts = json.dumps([tenant_id, connector, poll])
    return hashlib.sha256(parts.encode("ascii")).hexdigest()
