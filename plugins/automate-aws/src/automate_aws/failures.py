"""Failures of AWS: botocore's exceptions as errors with codes, and with retry decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status, retry_after_of

_DENIED = ErrorCodes.PERMISSION_DENIED
_NO_LOGIN = ErrorCodes.UNAUTHENTICATED
_NOT_THERE = ErrorCodes.NOT_FOUND
_SLOWER = ErrorCodes.RESOURCE_EXHAUSTED
_AGAIN = ErrorCodes.ABORTED
_AWAY = ErrorCodes.UNAVAILABLE
_UNFIT = ErrorCodes.FAILED_PRECONDITION

# By the services' own codes, as several come with status 400 whatever they mean.
_CODES: dict[str, ErrorCodes] = {
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AllAccessDisabled",
         "AccountProblem", "KMS.AccessDeniedException", "KmsAccessDenied", "OptInRequired"),
        _DENIED,
    ),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException",
         "IncompleteSignature", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
         "InvalidClientTokenId", "UnrecognizedClientException", "MissingAuthenticationToken",
         "MissingAuthenticationTokenException", "AuthFailure", "RequestTimeTooSkewed",
         "RequestExpired", "TokenRefreshRequired"),
        _NO_LOGIN,
    ),
    **dict.fromkeys(
        ("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "ResourceNotFoundException",
         "ParameterNotFound", "ParameterVersionNotFound", "QueueDoesNotExist",
         "AWS.SimpleQueueService.NonExistentQueue"),
        _NOT_THERE,
    ),
    **dict.fromkeys(
        ("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException",
         "SlowDown", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
         "BandwidthLimitExceeded", "ProvisionedThroughputExceededException", "OverLimit",
         "KmsThrottled", "EC2ThrottledException", "PriorRequestNotComplete"),
        _SLOWER,
    ),
    **dict.fromkeys(
        ("ConditionalRequestConflict", "OperationAborted", "TooManyUpdates",
         "QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently"),
        _AGAIN,
    ),
    **dict.fromkeys(("ServiceUnavailable", "ServiceUnavailableException"), _AWAY),
    **dict.fromkeys(
        ("InternalError", "InternalFailure", "InternalServerError", "InternalServiceError",
         "InternalServiceErrorException"),
        ErrorCodes.INTERNAL,
    ),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException"), ErrorCodes.DEADLINE_EXCEEDED),
    **dict.fromkeys(
        ("PreconditionFailed", "InvalidObjectState", "InvalidRequestException", "InvalidKeyId",
         "DecryptionFailure", "EncryptionFailure", "KmsDisabled", "KmsInvalidState"),
        _UNFIT,
    ),
}  # fmt: skip
_HINTS = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "InvalidObjectState": "the object is archived: restore it first",
    "ExpiredToken": "renew the temporary keys, or use a role",
    "ExpiredTokenException": "renew the temporary keys, or use a role",
    "NoSuchBucket": "look at the bucket's name and region",
    "QueueDoesNotExist": "look at the queue's URL and region",
}
_TIMEOUTS = (aws.ConnectTimeoutError, aws.ReadTimeoutError)
_LOST = (
    aws.HTTPClientError, aws.ConnectionError, aws.ResponseStreamingError, aws.IncompleteReadError,
)  # fmt: skip
_LOGIN = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError,
    aws.TokenRetrievalError, aws.SSOError, aws.UnauthorizedSSOTokenError,
)  # fmt: skip
_SETUP = (
    aws.NoRegionError, aws.InvalidRegionError, aws.ProfileNotFound, aws.ConfigParseError,
    aws.ConfigNotFound, aws.UnknownEndpointError, aws.EndpointProviderError,
)  # fmt: skip


@contextmanager
def worded(what: str) -> Iterator[None]:
    """Turn botocore's exceptions in the block into `AutomateError`; *what* names the call."""
    try:
        yield
    except AutomateError:
        raise
    except Exception as error:
        normal = failure_of(error, what)
        # The cause may hold the request with its credentials.
        raise normal from None


def failure_of(error: Exception, what: str) -> AutomateError:
    """Return the error for an exception of botocore in the call *what*."""
    if isinstance(error, aws.ClientError):
        return _refusal(error, what)
    kind = type(error).__name__
    if isinstance(error, _TIMEOUTS):
        return AutomateError(ErrorCodes.DEADLINE_EXCEEDED, f"{what}: no answer in time ({kind})")
    if isinstance(error, aws.SSLError):
        hint = "look at the certificate of the endpoint, and at ca_file"
        return AutomateError(_AWAY, f"{what}: no secure connection", hint=hint)
    if isinstance(error, _LOST):
        return AutomateError(_AWAY, f"{what}: the connection failed ({kind})")
    if isinstance(error, ResponseParserError):  # its own text shows the answer
        return AutomateError(_AWAY, f"{what}: the answer can't be read")
    if isinstance(error, _LOGIN):
        hint = "set keys, a profile or a role; or give the machine a role"
        return AutomateError(_NO_LOGIN, f"{what}: no credentials ({kind})", hint=hint)
    if isinstance(error, aws.ParamValidationError):
        return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{what}: {str(error)[:500]}")
    if isinstance(error, _SETUP):
        hint = "look at region and profile in the config"
        return AutomateError(_UNFIT, f"{what}: {str(error)[:500]}", hint=hint)
    if isinstance(error, aws.BotoCoreError):
        return AutomateError(_UNFIT, f"{what}: {kind}")
    # Anything else is the parser's, at an answer of another shape; its text may show the answer.
    return AutomateError(ErrorCodes.INTERNAL, f"{what}: the answer can't be read ({kind})")


def failure_code(name: str) -> ErrorCodes | None:
    """Return the code for a service's own code of a failure, or None if it isn't known."""
    return _CODES.get(name.rpartition("#")[2])


def aws_code(error: BaseException) -> str:
    """Return the service's own code in *error*, such as ``NoSuchKey``, or nothing."""
    code = error.details.get("aws_code") if isinstance(error, AutomateError) else None
    return code if isinstance(code, str) else ""


def _refusal(error: aws.ClientError, what: str) -> AutomateError:
    said = error.response.get("Error") or {}
    about = error.response.get("ResponseMetadata") or {}
    name, status = str(said.get("Code") or ""), about.get("HTTPStatusCode") or 0
    words = " ".join(str(said.get("Message") or "").split())[:500]
    code = failure_code(name) or _code_of(status)
    return AutomateError(
        code,
        f"{what}: {name or status}" + (f": {words}" if words else ""),
        hint=_HINTS.get(name),
        retry_after=retry_after_of(about.get("HTTPHeaders") or {}),
        details={"status": status, "aws_code": name},
    )


def _code_of(status: int) -> ErrorCodes:
    # A redirect is not followed: the address or the region is wrong.
    return code_of_status(status) if status >= 400 else _UNFIT


def needed(answer: Mapping[str, Any], name: str, what: str) -> Any:
    """Return a field of *answer*; raise ``UNAVAILABLE`` if it isn't there: it can't be read."""
    value = answer.get(name)
    if value is None:
        raise AutomateError(_AWAY, f"{what}: the answer has no {name}")
    return value
