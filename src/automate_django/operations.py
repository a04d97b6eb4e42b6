"""The operations that ``AUTOMATE_OPERATIONS`` offers: to clients of the API, and on the pages."""

from __future__ import annotations

from automate_django import conf
from automate_django.kernel import get_kernel
from automate_kernel.http.operations import ExposedOperations

CALL = "automate_django.call_operation"
"""The permission to call the operations that the settings offer."""

_SETTING = "AUTOMATE_OPERATIONS"


def exposed_operations(door: str) -> ExposedOperations:
    """Return the operations behind the *door* ``"API"`` or ``"PAGES"``; none by default."""
    return ExposedOperations(
        get_kernel(),
        conf.option(_SETTING, door),
        seconds=call_seconds(),
        max_output_bytes=conf.option(_SETTING, "MAX_OUTPUT_BYTES"),
    )


def call_seconds() -> float:
    """Return the seconds that a call takes at most."""
    return float(conf.option(_SETTING, "SECONDS"))
