"""Instants as databases write them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from automate_kernel.errors import StorageError
from automate_kernel.storage.codec import decode_time
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
