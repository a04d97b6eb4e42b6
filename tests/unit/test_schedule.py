"""When scheduled workflows fire, through clock changes too."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automate_kernel.base.errors import ConfigError
from automate_kernel.workflows.definition.triggers import cron_problem, ScheduleTrigger
from automate_kernel.workflows.steer.schedule import due, next_fire, upcoming

pytest.importorskip("cronsim")
UTC = timezone.utc
BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(line: str, zone: str = "UTC", *, catch_up: bool = False) -> ScheduleTrigger:
    """A trigger that fires at a cron line's times."""
    return ScheduleTrigger(cron=line, timezone=zone, catch_up=catch_up)


def fires(trigger: ScheduleTrigger, after: str, count: int) -> list[str]:
    """The next times, as UTC texts."""
    return [f"{fire:%m-%d %H:%M}" for fire in islice(upcoming(trigger, utc(after)), count)]


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from(
    ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Beirut",
     "Africa/Casablanca", "Pacific/Apia", "Asia/Kathmandu"]
)  # fmt: skip
LINES = st.sampled_from(
    ["*/7 * * * *", "0 * * * *", "30 2 * * *", "0 0 * * *", "15,45 1-3 * * *", "0 9 * * MON-FRI",
     "30 1 * * SUN", "0 0 L * *", "*/20 * * * * *", "0 */5 * * *", "59 23 31 12 *", "0 0 15 * 1"]
)  # fmt: skip


@given(MOMENTS, st.integers(1000, 10**9))
def test_every_counts_from_the_epoch(after: datetime, milliseconds: int) -> None:
    """All workers find the same next time, a whole number of steps from 1970."""
    trigger = ScheduleTrigger(every=milliseconds / 1000)
    fire = next_fire(trigger, after)
    step = timedelta(milliseconds=milliseconds)
    assert after < fire <= after + step
    assert (fire - datetime(1970, 1, 1, tzinfo=UTC)) % step == timedelta(0)


@settings(deadline=None)
@given(MOMENTS, ZONES, LINES)
def test_time_always_goes_on(after: datetime, zone: str, line: str) -> None:
    """In any zone, at any moment, the next times lie in the future, each after the one before."""
    trigger = cron(line, zone)
    times = list(islice(upcoming(trigger, after), 4))
    assert after < times[0]
    assert times == sorted(set(times))
    assert all(time.tzinfo is UTC for time in times)


@settings(deadline=None)
@given(MOMENTS, ZONES, LINES, st.floats(0, 1))
def test_nothing_fires_between(after: datetime, zone: str, line: str, part: float) -> None:
    """Asking from any moment before the next time gives that same time."""
    trigger = cron(line, zone)
    fire = next_fire(trigger, after)
    # Microseconds are all that a moment has: a part of few of them is rounded, but not up to all.
    between = min(after + (fire - after) * part, fire - timedelta(microseconds=1))
    assert next_fire(trigger, between) == fire


def test_a_local_time_keeps_to_its_zone() -> None:
    """Nine in Berlin is eight in UTC in winter and seven in summer."""
    nine = cron("0 9 * * *", BERLIN)
    assert fires(nine, "2026-03-27 12:00", 3) == ["03-28 08:00", "03-29 07:00", "03-30 07:00"]


def test_a_time_that_spring_skips_fires_after_the_gap() -> None:
    """Half past two doesn't exist on 29 March 2026 in Berlin: it fires at three, once."""
    daily = cron("30 2 * * *", BERLIN)
    assert fires(daily, "2026-03-28 12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    twice = cron("15,45 2 * * *", BERLIN)
    assert fires(twice, "2026-03-28 12:00", 2) == ["03-29 01:00", "03-30 00:15"]


def test_a_time_that_autumn_repeats_fires_once() -> None:
    """Half past two comes twice on 25 October 2026 in Berlin: the first one fires."""
    daily = cron("30 2 * * *", BERLIN)
    assert fires(daily, "2026-10-24 12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    # Asked in the second pass of the hour, the first pass lies in the past.
    assert fires(daily, "2026-10-25 01:10", 1) == ["10-26 01:30"]


def test_an_even_pace_goes_through_both() -> None:
    """Every half hour stays every half hour when the clock changes."""
    half = cron("*/30 * * * *", BERLIN)
    for start in ("2026-03-29 00:00", "2026-10-25 00:00"):
        times = list(islice(upcoming(half, utc(start)), 8))
        assert {b - a for a, b in pairwise(times)} == {timedelta(minutes=30)}


def test_midnight_that_does_not_exist() -> None:
    """In Havana the clock goes from midnight to one: the day's fire comes at one."""
    fire = next_fire(cron("0 0 * * *", "America/Havana"), utc("2026-03-07 12:00"))
    assert fire.astimezone(ZoneInfo("America/Havana")).strftime("%d %H:%M") == "08 01:00"


def test_a_day_that_does_not_exist() -> None:
    """Samoa had no 30 December 2011: what was due then fires as the 31st begins."""
    assert fires(cron("0 12 * * *", "Pacific/Apia"), "2011-12-29 23:00", 3) == [
        "12-30 10:00",
        "12-30 22:00",
        "12-31 22:00",
    ]


def test_a_pause_is_made_up_for_once() -> None:
    """After a night off, the hourly report is made once, for the newest hour."""
    hourly = cron("0 * * * *")
    assert due(hourly, utc("2026-01-01 18:00"), utc("2026-01-02 08:30")) == [
        utc("2026-01-02 08:00")
    ]
    assert due(hourly, utc("2026-01-02 08:00"), utc("2026-01-02 08:59")) == []
    every = ScheduleTrigger(every=300)
    assert due(every, utc("2026-01-01 00:00"), utc("2026-01-01 00:12")) == [utc("2026-01-01 00:10")]


def test_catching_up_makes_up_for_each() -> None:
    """With catch_up every missed time fires, the oldest first, a batch at a time."""
    hourly = cron("0 * * * *", catch_up=True)
    last, now = utc("2026-01-01 18:00"), utc("2026-01-02 00:30")
    first = due(hourly, last, now, limit=4)
    assert [fire.hour for fire in first] == [19, 20, 21, 22]
    assert [fire.hour for fire in due(hourly, first[-1], now, limit=4)] == [23, 0]


@settings(deadline=None, max_examples=50)
@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)), ZONES, LINES)
def test_the_newest_is_the_last_of_all(
    last: datetime, pause: timedelta, zone: str, line: str
) -> None:
    """What is due without catch_up is the last of what is due with it."""
    now = last + min(pause, timedelta(hours=6)) if line.count(" ") == 5 else last + pause
    whole = due(cron(line, zone, catch_up=True), last, now, limit=10_000)
    assert due(cron(line, zone), last, now) == whole[-1:]


def test_naive_times_are_refused() -> None:
    """A time without a zone could mean anything."""
    with pytest.raises(ValueError, match="naive"):
        next_fire(ScheduleTrigger(every=60), datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("61 * * * *", "wrong minute", "five fields"),
        ("* * * *", "has 4 fields", "five fields"),
        ("@Hourly", "nickname", "write '0 * * * *'"),
        ("@reboot", "nickname", "write the line out"),
        ("0 0 30 2 *", "day-of-month", "five fields"),
        ("0 0 31 4,6 *", "day-of-month", "five fields"),
        ("0 0 * * FUNDAY", "wrong day-of-week", "MON-FRI"),
    ],
)
def test_a_wrong_line_is_answered_with_a_remedy(line: str, problem: str, remedy: str) -> None:
    """Each mistake in a cron line names its field and what to write."""
    found = cron_problem(line)
    assert found is not None
    assert problem in found[0]
    assert remedy in found[1]


def test_without_cronsim_the_remedy_is_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions still load without the package; asking for a time says what to install."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    trigger = cron("0 9 * * *")
    with pytest.raises(ConfigError, match=r"automate-kernel\[schedule\]"):
        next_fire(trigger, utc("2026-01-01 00:00"))
    assert next_fire(ScheduleTrigger(every=60), utc("2026-01-01 00:00")).minute == 1
