"""Codes for what file systems, S3 and SFTP raise."""

from __future__ import annotations

import asyncio
import errno
import sys

from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status, retry_after_of

# The first that fits counts, so a class stands before its bases.
_BY_CLASS: tuple[tuple[type[BaseException], ErrorCodes, str], ...] = (
    (FileNotFoundError, ErrorCodes.NOT_FOUND, "it isn't there"),
    (FileExistsError, ErrorCodes.ALREADY_EXISTS, "it is there already"),
    (IsADirectoryError, ErrorCodes.FAILED_PRECONDITION, "it is a folder, or no file at all"),
    (NotADirectoryError, ErrorCodes.FAILED_PRECONDITION, "a folder above it is none"),
    (PermissionError, ErrorCodes.PERMISSION_DENIED, "it may not"),
    (TimeoutError, ErrorCodes.DEADLINE_EXCEEDED, "it took too long"),
    # On Python 3.10 it is a class of its own.
    (asyncio.TimeoutError, ErrorCodes.DEADLINE_EXCEEDED, "it took too long"),
    (ConnectionError, ErrorCodes.UNAVAILABLE, "the connection was lost"),
    (EOFError, ErrorCodes.UNAVAILABLE, "the connection was lost"),
)
_BY_NUMBER: dict[int | None, tuple[ErrorCodes, str]] = {
    errno.ENOSPC: (ErrorCodes.RESOURCE_EXHAUSTED, "there is no space left"),
    errno.EDQUOT: (ErrorCodes.RESOURCE_EXHAUSTED, "there is no space left"),
    errno.EFBIG: (ErrorCodes.RESOURCE_EXHAUSTED, "the file would be too large"),
    errno.EMFILE: (ErrorCodes.RESOURCE_EXHAUSTED, "there are too many open files"),
    errno.ENFILE: (ErrorCodes.RESOURCE_EXHAUSTED, "there are too many open files"),
    errno.ELOOP: (ErrorCodes.PERMISSION_DENIED, "links aren't followed, and it is one or in one"),
    errno.ENOTEMPTY: (ErrorCodes.FAILED_PRECONDITION, "the folder isn't empty"),
    errno.EROFS: (ErrorCodes.PERMISSION_DENIED, "it is read-only"),
    errno.ENAMETOOLONG: (ErrorCodes.INVALID_ARGUMENT, "the name is too long"),
    errno.EXDEV: (ErrorCodes.FAILED_PRECONDITION, "it is on another disk"),
}  # fmt: skip
_SIGN_IN = frozenset({
    "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "TokenRefreshRequired", "RequestTimeTooSkewed", "401",
})  # fmt: skip
# Where S3 means something else than HTTP does: 412 is the answer to a file that is there already.
_BY_STATUS = {400: ErrorCodes.FAILED_PRECONDITION, 412: ErrorCodes.ALREADY_EXISTS}


def failure_of(error: Exception, what: str) -> Exception:
    """
    Return the `AutomateError` of what a place raised. Its message begins with *what*.

    An exception of no known kind is returned as it is: the fault may be here.
    """
    own = _own_of(error)
    if own is not None:
        return own
    if isinstance(error, KeyError) and type(error).__module__ == "builtins":
        # s3fs takes for granted what an answer has.
        return AutomateError(ErrorCodes.UNAVAILABLE, f"{what}: its answer lacks what it must have")
    answered = _answer_of(error)
    if answered is not None:
        return _of_answer(answered, what)
    found = _of_library(error) or _of_class(error)
    if found is None:
        return error
    code, words = found
    return AutomateError(code, f"{what}: {words}")


def _own_of(error: BaseException | None) -> AutomateError | None:
    """Return the `AutomateError` that *error* is, or that a library has wrapped."""
    for _ in range(6):
        if error is None or isinstance(error, AutomateError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _of_class(error: BaseException) -> tuple[ErrorCodes, str] | None:
    number = error.errno if isinstance(error, OSError) else None
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    for cls, code, words in _BY_CLASS:
        if isinstance(error, cls):
            return code, words
    if isinstance(error, OSError):
        return ErrorCodes.UNAVAILABLE, error.strerror or type(error).__name__
    return None


def _answer_of(error: BaseException | None) -> dict[str, object] | None:
    """Return the answer of S3 that stands behind *error*: s3fs keeps it as the cause."""
    for _ in range(4):
        response = getattr(error, "response", None)
        if isinstance(response, dict) and "ResponseMetadata" in response:
            return response
        error = getattr(error, "__cause__", None)
        if error is None:
            return None
    return None


def _of_answer(answer: dict[str, object], what: str) -> AutomateError:
    said, meta = answer.get("Error"), answer["ResponseMetadata"]
    name = str(said.get("Code", "")) if isinstance(said, dict) else ""
    status = int(meta.get("HTTPStatusCode", 0)) if isinstance(meta, dict) else 0
    headers = meta.get("HTTPHeaders", {}) if isinstance(meta, dict) else {}
    if name in _SIGN_IN:
        code = ErrorCodes.UNAUTHENTICATED
    elif name in {"SlowDown", "Throttling", "TooManyRequests"}:
        code = ErrorCodes.RESOURCE_EXHAUSTED
    elif name == "RequestTimeout":  # with the status 400
        code = ErrorCodes.DEADLINE_EXCEEDED
    elif status >= 500:
        code = ErrorCodes.UNAVAILABLE
    else:
        code = _BY_STATUS.get(status) or code_of_status(status)
    words = name if name and name.isascii() and name.isalnum() else "an error"
    return AutomateError(
        code, f"{what}: it answers {words[:60]} ({status})", retry_after=retry_after_of(headers)
    )


def _of_library(error: BaseException) -> tuple[ErrorCodes, str] | None:
    """Return the failure that a client library has a class of its own for, if it is loaded."""
    modules = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    if "paramiko" in modules:
        return _of_paramiko(error)
    if modules & {"botocore", "aiobotocore", "aiohttp", "urllib3"}:
        return _of_botocore(error)
    return None


def _of_paramiko(error: BaseException) -> tuple[ErrorCodes, str]:
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        return ErrorCodes.FAILED_PRECONDITION, "the server has another host key than it should"
    if isinstance(error, paramiko.AuthenticationException):
        return ErrorCodes.UNAUTHENTICATED, "the server refuses the user, password or key"
    return ErrorCodes.UNAVAILABLE, f"the connection was lost ({type(error).__name__})"


def _of_botocore(error: BaseException) -> tuple[ErrorCodes, str]:
    name = type(error).__name__
    if "Timeout" in name:
        return ErrorCodes.DEADLINE_EXCEEDED, "it took too long"
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions is not None:
        if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
            return ErrorCodes.UNAUTHENTICATED, "this machine has no credentials for it"
        if isinstance(error, (exceptions.ParamValidationError, exceptions.InvalidRegionError)):
            return ErrorCodes.INVALID_ARGUMENT, "its config or the name isn't accepted"
    return ErrorCodes.UNAVAILABLE, f"there was no right answer ({name})"
