"""Instants as databases write them, and JSON as the kernel writes it."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from automate_kernel.base.errors import PayloadError, StorageError
from automate_kernel.storage.codec import decode_time, encode, json_text
from automate_kernel.storage.dialects import DIALECTS
from automate_kernel.storage.tables import Column
from automate_kernel.storage.values import encode_json, is_plain, read_json
from automate_testing.contracts.values import each_value, is_json, same
from hypothesis import given
from hypothesis import strategies as st

# To the second, as some places had it before there were time zones.
OFFSETS = st.integers(-15 * 3600, 15 * 3600).map(lambda n: timezone(timedelta(seconds=n)))


def as_postgresql_writes(moment: datetime) -> str:
    """ISO style: no zeros at the end of a second, and of the zone no more than there is."""
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    if moment.microsecond:
        text += f".{moment.microsecond:06}".rstrip("0")
    offset = moment.utcoffset() or timedelta(0)
    minutes, seconds = divmod(abs(int(offset.total_seconds())), 60)
    text += f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}"
    if minutes % 60 or seconds:
        text += f":{minutes % 60:02}"
    return text + (f":{seconds:02}" if seconds else "")


@given(st.datetimes(datetime(1100, 1, 1), datetime(9900, 1, 1), timezones=OFFSETS))
def test_an_instant_comes_back(moment: datetime) -> None:
    """In whatever zone the session is, and with as many digits as it has."""
    decoded = decode_time(as_postgresql_writes(moment))
    assert decoded == moment
    assert decoded.tzinfo is timezone.utc


@given(st.datetimes(datetime(1100, 1, 1), datetime(9900, 1, 1)))
def test_without_a_zone_it_is_utc(moment: datetime) -> None:
    """SQLite keeps text, and MySQL has no zones."""
    expected = moment.replace(tzinfo=timezone.utc)
    assert decode_time(moment.isoformat(" ", "microseconds")) == expected
    assert decode_time(moment) == expected


@pytest.mark.parametrize("text", ["25/11/2026 14:42:38.5 UTC", "infinity"])
def test_what_is_no_instant_of_ours_says_how_to_mend_it(text: str) -> None:
    """Another DateStyle would be read wrongly by half of all days."""
    with pytest.raises(StorageError, match="DateStyle"):
        decode_time(text)


def as_jsonb(text: str) -> str:
    """*text* as jsonb writes it: numbers are decimals, written in full, and zero has no sign."""

    def number(match: re.Match[str]) -> str:
        if match[0][0] == '"':
            return match[0]
        written = f"{Decimal(match[0]):f}"
        return written.lstrip("-") if not Decimal(match[0]) else written

    return re.sub(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?', number, text)


def test_json_survives_its_readers() -> None:
    """Python's own reader, and a database that makes decimals of numbers, give what was written."""

    def check(value: Any) -> None:
        if is_json(value):
            text = str(json_text(value))
            assert same(json.loads(text), value)
            assert same(json.loads(as_jsonb(text)), value)

    each_value(check, examples=200)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(value: float) -> None:
    """With its sign and its type, as it is and as a decimal."""
    for text in (str(json_text(value)), as_jsonb(str(json_text(value)))):
        assert same(json.loads(text), value)


def test_parts_that_are_shared_many_times_end() -> None:
    """Thirty lists that hold each other twice are a billion values: refused, and soon."""
    shared: Any = []
    for _ in range(60):
        shared = [shared, shared]
    assert not is_plain(shared)
    with pytest.raises(PayloadError):
        encode_json(shared, "payload")


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"n": -Infinity}', "{", "", "nul"])
def test_only_json_is_read(text: str) -> None:
    """Python's own reader takes NaN and Infinity, which no database stores."""
    with pytest.raises(ValueError):
        read_json(text)


def test_json_is_read_as_it_was_written() -> None:
    """A reader of integers sees each of them."""
    assert read_json('{"n": [1, 1.0, null, "NaN"]}') == {"n": [1, 1.0, None, "NaN"]}
    assert read_json("[12, 3]", parse_int=len) == [2, 1]


@pytest.mark.parametrize("name", ["sqlite", "mysql"])
def test_both_times_of_an_hour_that_a_clock_repeats_are_written(name: str) -> None:
    """They are equal in Python, and an hour apart."""
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    second = first.replace(fold=1)
    assert first == second
    column = Column("at", "time")
    written = [encode(DIALECTS[name], column, each) for each in (first, second)]
    assert [decode_time(each).hour for each in written] == [0, 1]
