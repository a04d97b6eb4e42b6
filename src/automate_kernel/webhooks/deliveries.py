"""By what a delivery that comes again is told."""

from __future__ import annotations

import logging
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.logs import get_logger

__all__ = ["delivery_id_of"]

logger: logging.Logger = get_logger(__name__)


def delivery_id_of(connector: Any, spec: Any, headers: Any, raw_body: bytes) -> str | None:
    """
    The id of a verified delivery: what the connector says, or else what its trigger's scheme says.

    None if neither knows one, as only a connector without a scheme doesn't. A connector that fails
    to tell, or tells something that is no id, has a bug: that is logged, and the scheme's id
    guards the delivery. Raises ``INVALID_ARGUMENT`` if the trigger requires an id of the service's
    own and there is none, and what the connector raised if there is no scheme to fall back on.
    """
    of_scheme = getattr(spec.signature, "delivery_id", None)
    try:
        found = _text_of(connector.delivery_id(spec.name, headers, raw_body))
    except Exception as error:
        if not callable(of_scheme) or _tells_the_sender(error):
            raise
        found = None
        logger.error(
            "%s: delivery_id failed for %r, so the scheme's own id is taken: %s",
            connector.key, spec.name, type(error).__name__,
        )  # fmt: skip
    required = spec.replay_guard == "required"
    if found is None and callable(of_scheme):
        found = of_scheme(headers, raw_body, hashed=not required)
    if found is None and required:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the {spec.name!r} webhook has no delivery id, and its trigger requires one",
            hint="the header with the id must be there once, and not be blank",
        )
    return found


def _text_of(found: Any) -> str | None:
    """*found* as an id; None for what says nothing. Raises ``INTERNAL`` for what is no id."""
    if isinstance(found, bytes):
        found = found.decode("utf-8", "backslashreplace")
    elif isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if found is None or (isinstance(found, str) and not found.strip()):
        return None
    if not isinstance(found, str):
        raise AutomateError(
            ErrorCodes.INTERNAL,
            f"delivery_id gave {type(found).__name__}",
            hint="return text, or None where there is no id",
            retryable=False,
        )
    return found


def _tells_the_sender(error: Exception) -> bool:
    """Whether it is about the request, or passes by; not a bug in the connector."""
    told = (ErrorCodes.INVALID_ARGUMENT, ErrorCodes.UNAVAILABLE)
    return isinstance(error, AutomateError) and error.code in told
