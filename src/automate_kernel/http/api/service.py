"""The service itself: its workers, plugins, health and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automate_kernel.access.audit import unknown
from automate_kernel.access.roles import scopes_of
from automate_kernel.http.api.exchange import (
    ApiPage,
    ApiRequest,
    WholeValue,
    require,
)
from automate_kernel.http.api.problems import ApiError
from automate_kernel.monitoring.health import database_problems
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.plugins.records import PluginRecord


def list_workers(request: ApiRequest) -> Sequence[WorkerInfo]:
    """List the workers, as they last reported; lost workers too."""
    return request.kernel.outbox.workers()


def list_plugins(request: ApiRequest) -> Sequence[PluginRecord]:
    """List the plugins, the unusable ones too, with what to do about those."""
    return request.kernel.plugins.records()


def show_health(request: ApiRequest) -> Any:
    """Say whether the database can be used, and whether a worker works."""
    problems = database_problems(request.kernel)
    if not problems and not any(each.alive for each in request.kernel.outbox.workers()):
        problems = ["no worker works"]
    return {"ready": not problems, "problems": problems}


# -- tokens ------------------------------------------------------------------------------------


def list_tokens(request: ApiRequest) -> ApiPage:
    """List the tokens, the latest first: a tenant's, for an operator all."""
    return request.page(request.kernel.tokens.page, "tokens", **request.filters)


def make_token(request: ApiRequest) -> Any:
    """Make a token, which can do no more than its maker's; its text is shown this once."""
    given, client = request.command, request.client
    wanted = {*given.get("scopes", ()), *scopes_of(given.get("roles", ()))}
    if not client.may_pass_on(wanted):
        raise ApiError(403, "A token can't pass on a scope that it has not itself.")
    token, text = request.kernel.tokens.new(user_id=client.user_id, **given)
    return WholeValue(token, text=text)


def revoke_token(request: ApiRequest, prefix: str) -> None:
    """End a token, from the next request on."""
    token = request.kernel.tokens.get(prefix)
    if token is None:
        raise unknown("token", prefix)
    request.client.visible(token)
    require(request.kernel.tokens.revoke(token.prefix), "It has been revoked already.")
