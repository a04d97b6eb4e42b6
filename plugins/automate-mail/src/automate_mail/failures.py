"""Failures of mail servers as errors with a code, and the decision whether to try again."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_mail.config import MailServer

_READ, _SHOWN = 4_096, 200
_SMTP_CODES = {
    452: ErrorCodes.RESOURCE_EXHAUSTED,
    502: ErrorCodes.UNIMPLEMENTED,
    504: ErrorCodes.UNIMPLEMENTED,
    530: ErrorCodes.UNAUTHENTICATED,
    534: ErrorCodes.UNAUTHENTICATED,
    535: ErrorCodes.UNAUTHENTICATED,
    538: ErrorCodes.UNAUTHENTICATED,
    552: ErrorCodes.INVALID_ARGUMENT,
}


def code_of_reply(status: int) -> tuple[ErrorCodes, bool]:
    """Return the code for an SMTP reply, and whether trying again can help: at 4xx it can."""
    if 400 <= status < 500:
        return _SMTP_CODES.get(status, ErrorCodes.UNAVAILABLE), True
    if 500 <= status < 600:
        return _SMTP_CODES.get(status, ErrorCodes.FAILED_PRECONDITION), False
    return ErrorCodes.UNAVAILABLE, True


def said(text: str | bytes, redact: Callable[[str], str]) -> str:
    """Return a server's words for people: redacted, on one line, and short."""
    # A server may say megabytes, and each of the steps below needs many times as much.
    text = text[:_READ]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = redact(text)  # before it is cut to what is shown: half a secret is not recognised
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def login_failed(what: str, server: MailServer, *, temporary: bool = False) -> AutomateError:
    """
    Return the error for a login that was refused.

    It never has the server's words: some repeat the password.
    """
    if temporary:
        return AutomateError(ErrorCodes.UNAVAILABLE, f"{what} can't check the login now")
    return AutomateError(
        ErrorCodes.UNAUTHENTICATED,
        f"{what} refused the login",
        hint="see whether the account that is connected is this user's, and whether the service "
        "allows this protocol for the mailbox"
        if server.by_account
        else "check user and the secret; an access token may have expired",
    )


def transport_failure(
    what: str, error: BaseException, *, late: ErrorCodes = ErrorCodes.DEADLINE_EXCEEDED
) -> AutomateError:
    """
    Return the error for a connection that failed: the certificate, the time, or the network.

    *late* is the code if the time ran out.
    """
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"{what} has a certificate that isn't trusted: {each.verify_message}",
                hint="use the name in the certificate as host, or trust its issuer by ca_file",
            )
    if any(
        isinstance(each, TimeoutError) or "Timeout" in type(each).__name__ for each in _chain(error)
    ):
        return AutomateError(late, f"{what} took too long to answer")
    if any(isinstance(each, ssl.SSLError) for each in _chain(error)):
        return AutomateError(
            ErrorCodes.UNAVAILABLE,
            f"{what} does not speak TLS as configured",
            hint='see whether tls should be "implicit" or "starttls", and the port',
        )
    return AutomateError(
        ErrorCodes.UNAVAILABLE,
        f"the connection to {what} failed: {type(error).__name__}",
        hint="check host and port, and that the server runs",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
