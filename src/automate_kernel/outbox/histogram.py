"""
Durations counted in buckets of a logarithmic scale, ten to a factor of ten.

Bucket *i* holds what took at most 10 ** (i / 10) seconds and longer than the bucket before it: 0
ends at 1 s, -30 at 1 ms, 10 at 10 s. A bucket is 26 % wide, so a percentile is right to about an
eighth, whether it is of microseconds or of hours, and histograms of many workers add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log10

__all__ = ["FIRST", "LAST", "bucket_of", "percentile", "upper_bound"]

FIRST, LAST = -50, 60
"""10 µs and less, and 12 days and more."""

_SHORTEST, _LONGEST = 10 ** (FIRST / 10), 10 ** (LAST / 10)


def bucket_of(seconds: float) -> int:
    """The bucket that a duration is counted in."""
    if seconds <= _SHORTEST:
        return FIRST
    return ceil(log10(seconds) * 10) if seconds < _LONGEST else LAST


def upper_bound(bucket: int) -> float:
    """The longest duration that *bucket* holds, in seconds."""
    return float(10 ** (bucket / 10))


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """
    The duration that a *share* of those counted in *buckets* stayed within; None if there are none.

    ``percentile(activity.run_buckets, 0.95)`` is the p95 of run times, in seconds.
    """
    total = sum(buckets.values())
    if not total:
        return None
    wanted = min(max(share, 0.0), 1.0) * total
    seen = 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if count and seen + count >= wanted:
            # Within a bucket they are taken to lie evenly on the scale.
            return upper_bound(bucket) / 10 ** (0.1 * (1 - (wanted - seen) / count))
        seen += count
    return upper_bound(max(buckets))
