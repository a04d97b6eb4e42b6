"""The API as a part of the ASGI application: who asks, and the threads that answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from automate_kernel.access.roles import scopes_of
from automate_kernel.access.tokens import AccessToken
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.answers import HttpAnswer, HttpError
from automate_kernel.http.api.answering import answer, read_body, read_query, with_etag
from automate_kernel.http.api.exchange import ApiAnswer, ApiClient, ApiRequest, read_json_body
from automate_kernel.http.api.idempotency import (
    LOCK_SECONDS,
    KeyedRequest,
    fingerprint_of,
    read_key,
)
from automate_kernel.http.api.openapi import openapi
from automate_kernel.http.api.problems import CONTENT_TYPE, FAILED, ApiError, problem_of
from automate_kernel.http.api.routes import BY_NAME, ApiRoute, find_route
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.http.threads import BusyError, CallThreads
from automate_kernel.kernel import Kernel
from automate_kernel.secrets.logs import get_logger
from automate_kernel.triggers.webhooks import WebhookHeaders
from automate_kernel.triggers.webhooks.request import BodyError

logger: logging.Logger = get_logger(__name__)

_MOST_AT_ONCE, _MOST_WAITING = 8, 64
_MOST_CALLS = 16
_MOST_FIELDS = 100
_LONGEST_QUERY = 20_000


@dataclass(frozen=True, slots=True)
class ApiCall:
    """
    A request as a server took it: *parts* are those of its path below the API's root.

    *origin* is scheme and host, *base* the path of the API's root.
    """

    method: str
    parts: Sequence[str]
    query: bytes
    headers: WebhookHeaders
    body: bytes
    origin: str
    base: str


class Api:
    """Answers calls for *kernel* to holders of its tokens, each on a thread."""

    def __init__(self, kernel: Kernel, operations: ExposedOperations | None = None) -> None:
        self._kernel = kernel
        self._operations = operations or ExposedOperations(kernel, ())
        # Fewer than a pool has connections. Calls of services hold none, and take their time.
        self._threads = CallThreads("automate-api", _MOST_AT_ONCE, waiting=_MOST_WAITING)
        self._slow = CallThreads("automate-api-calls", _MOST_CALLS)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.close()
        self._slow.close()

    async def aanswer(self, call: ApiCall) -> HttpAnswer:
        """Return the answer to a call; never raises an `Exception`."""
        try:
            slow = find_route(call.method, call.parts)[0].slow
        except ApiError:
            slow = False  # who has no token is not told
        try:
            return await (self._slow if slow else self._threads).run(self.answer, call)
        except BusyError:
            after = {"Retry-After": "1"}
            return _problem(ApiError(503, "Too many calls are under way.", headers=after))

    def answer(self, call: ApiCall) -> HttpAnswer:
        """Return the answer to a call; never raises an `Exception`."""
        try:
            return self._answer(call)
        except ApiError as problem:
            return _problem(problem)
        except AutomateError as error:
            found = problem_of(error)
            if found.status >= 500:
                # Its text is made for logs, and holds no secret.
                logger.error("%s: %s", "/".join(call.parts), error)
            return _problem(found)
        except Exception:
            logger.exception("%s failed", "/".join(call.parts))
            return _problem(ApiError(500, FAILED))

    def _answer(self, call: ApiCall) -> HttpAnswer:
        token = self._token(call.headers)
        if list(call.parts) == ["schema"] and call.method in ("GET", "HEAD"):
            document = with_etag(ApiAnswer(200, openapi(call.base)), _etag(call.headers))
            return _sent(document)
        route, arguments = find_route(call.method, call.parts)
        if not token.allows(route.scope):
            raise ApiError(403, "The token has not the scope that this needs.")
        request = ApiRequest(
            self._kernel,
            _client(token),
            self._operations,
            url=_url(call),
            base=call.base,
            query=read_query(route, _pairs(call.query)),
            body=self._body(route, call),
            idempotency_key=_key(call.headers),
        )
        if route.method == "GET":
            found = with_etag(answer(route, request, [*arguments.values()]), _etag(call.headers))
        else:
            found = self._once(route, request, [*arguments.values()], call)
        return _sent(found)

    def _once(
        self, route: ApiRoute, request: ApiRequest, arguments: list[str], call: ApiCall
    ) -> ApiAnswer:
        """Answer a command; with a key it is carried out once."""
        key = request.idempotency_key
        if key is None or route.secret:  # such an answer is never kept
            return answer(route, request, arguments)
        once = KeyedRequest(
            self._kernel.storage,
            self._kernel.redactor.redact_value,
            request.client.key,
            key,
            fingerprint_of(call.method, _url(call), body=call.body),
            lock_seconds=LOCK_SECONDS + (self._operations.seconds if route.slow else 0.0),
        )
        before = once.begin()
        if before is not None:
            return before
        try:
            found = answer(route, request, arguments)
            once.keep(found)
        except BaseException:
            once.release()
            raise
        return found

    def _token(self, headers: WebhookHeaders) -> AccessToken:
        given = headers.get_all("authorization")
        scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        token = self._kernel.tokens.find(text.strip()) if scheme.lower() == "bearer" else None
        # A user's token does what that user may, which the application alone knows that has users.
        if token is None or token.user_id is not None:
            challenge = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, "The token is not valid.", headers=challenge)
        return token

    def _body(self, route: ApiRoute, call: ApiCall) -> dict[str, Any]:
        if route.method == "GET":
            return {}
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if call.body.strip() and kind != "application/json":
            raise ApiError(415, "Send JSON, as application/json.")
        try:
            return read_body(route, read_json_body(call.body))
        except BodyError as error:
            raise ApiError(400, f"JSON parse error: {error}") from None


def _client(token: AccessToken) -> ApiClient:
    own = token.tenant_id
    return ApiClient(
        # Nobody becomes a person by a token's name.
        name=f"token:{token.name}"[:200],
        key=token.id,
        id=token.id,
        tenant_id=own,
        operator=own is None and token.all_tenants,
        scopes=frozenset({*token.scopes, *scopes_of(token.roles)}),
        allows=lambda name: token.allows(BY_NAME[name].scope),
    )


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        if len(query) > _LONGEST_QUERY:
            raise ValueError
        text = query.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise ApiError(400, "The query can't be read.") from None


def _url(call: ApiCall) -> str:
    query = call.query.decode("ascii", "replace")
    path = "/".join([call.base, *call.parts])
    return f"{call.origin}{path}{'?' if query else ''}{query}"


def _key(headers: WebhookHeaders) -> str | None:
    keys = headers.get_all("idempotency-key")
    # A server in front may have joined two by a comma, which no key has.
    return read_key(",".join(keys)) if keys else None


def _etag(headers: WebhookHeaders) -> str | None:
    return ",".join(headers.get_all("if-none-match")) or None


def _sent(found: ApiAnswer) -> HttpAnswer:
    return HttpAnswer(found.status, "" if found.body is None else found.body, found.headers)


def _problem(problem: ApiError) -> HttpAnswer:
    headers = {"Content-Type": CONTENT_TYPE, **problem.headers}
    return HttpAnswer(problem.status, problem.body(), headers)


def of_request(error: HttpError) -> HttpAnswer:
    """Return the problem of a request that could not be read to its end."""
    return _problem(ApiError(error.answer.status, str(error), headers=error.answer.headers))
