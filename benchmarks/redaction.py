"""The redactor: the time that a text takes, and how much of it is the look into encodings."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from collections.abc import Iterator
from statistics import median

from automate_kernel.secrets import redaction
from automate_kernel.secrets.redaction import Redactor

_SECRETS, _TURNS, _SECONDS = 20, 7, 0.02


def redaction_costs() -> str:
    """Measure texts of several kinds, and return a line for each in words."""
    redactor = Redactor(f"tok-{uuid.UUID(int=number).hex}" for number in range(_SECRETS))
    lines = [f"{_SECRETS} secrets, medians of {_TURNS} turns; ×: of the same without decoding"]
    for name, text in _texts().items():
        whole, plain = (median(each) for each in zip(*_turns(redactor, text), strict=True))
        lines.append(
            f"{name}, {len(text):,} characters: {whole * 1e6:,.1f} µs, {whole / plain:.1f} ×"
        )
    return "\n".join(lines)


def _texts() -> dict[str, str]:
    choose = random.Random(1)
    order = {"id": 4711, "customer": "Ann Smith", "items": ["tea", "milk"], "paid": True}
    escaped = json.dumps([{**order, "city": "Z\u00fcrich \u2014 \u201cOerlikon\u201d"}] * 12)
    return {
        "log line": "order 4711 of Ann Smith was paid with 3 items",
        "log line with a UUID": f"order {uuid.UUID(int=choose.getrandbits(128))} was paid",
        "JSON": json.dumps([order] * 12),
        "JSON with escapes": escaped,
        "JSON with numbers": json.dumps([choose.randrange(1000) for _ in range(250)]),
        "base64": base64.b64encode(choose.randbytes(12_000)).decode(),
    }


def _turns(redactor: Redactor, text: str) -> Iterator[tuple[float, float]]:
    """Yield the seconds of one text, with and without decoding, in turns."""
    read = redaction.readings
    for _ in range(_TURNS):
        whole = _seconds(redactor, text)
        try:
            redaction.readings = lambda text, depth=0: iter(())  # type: ignore[assignment]
            yield whole, _seconds(redactor, text)
        finally:
            redaction.readings = read


def _seconds(redactor: Redactor, text: str) -> float:
    count, began = 0, time.process_time()
    while (taken := time.process_time() - began) < _SECONDS:
        redactor.redact(text)
        count += 1
    return taken / count
