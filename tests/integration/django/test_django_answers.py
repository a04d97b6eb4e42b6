"""Nobody is answered "accepted" by a request to Django whose COMMIT fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from automate_django import emit
from automate_django.models import OutboxItem
from automate_kernel import Connector, TriggerSpec
from automate_kernel.secrets import MemorySecretsBackend
from automate_kernel.triggers.webhooks import GitHubSignature
from django.contrib.auth.models import User
from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client, override_settings
from django.urls import include, path

SECRET = "a-webhook-secret"


class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        signature = GitHubSignature("HOOK")
        return [TriggerSpec("push", signature=signature, delivery_id_header="X-GitHub-Delivery")]


def order(request: HttpRequest) -> HttpResponse:
    """A view of the project, in the request's transaction if there is one."""
    if not connections["default"].settings_dict["ATOMIC_REQUESTS"]:
        with transaction.atomic():
            emit("order.created")
    else:
        emit("order.created")
    return HttpResponse(status=201)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """An answer whose parts are made when the request's transaction is over."""

    def parts() -> Iterator[bytes]:
        yield b"accepted"
        with transaction.atomic():
            emit("order.created")

    return StreamingHttpResponse(parts(), status=201)


urlpatterns = [
    path("order", order),
    path("stream", stream),
    path("api/", include("automate_django.api.urls")),
]


class Commits:
    fail = False


@pytest.fixture(params=[False, True], ids=["own-transactions", "atomic-requests"])
def commits(
    request: pytest.FixtureRequest, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Commits]:
    """Commits that fail while they are told to, with ATOMIC_REQUESTS and without."""
    commit, commits = BaseDatabaseWrapper._commit, Commits()

    def committed(connection: BaseDatabaseWrapper) -> None:
        if commits.fail:
            raise OperationalError("database or disk is full")
        commit(connection)

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", committed)
    monkeypatch.setitem(connections[sqlite].settings_dict, "ATOMIC_REQUESTS", request.param)
    with override_settings(
        ROOT_URLCONF=__name__,
        AUTOMATE_CONNECTORS=[GitHub],
        AUTOMATE_SECRETS=[MemorySecretsBackend({"HOOK": SECRET})],
    ):
        yield commits


def client() -> Client:
    user, _ = User.objects.get_or_create(username="root", is_superuser=True, is_staff=True)
    made = Client(raise_request_exception=False)
    made.force_login(user)
    return made


def event(client: Client) -> Any:
    return client.post("/api/events", {"name": "order.created"}, "application/json")


def event_with_key(client: Client) -> Any:
    body = {"name": "order.created"}
    return client.post("/api/events", body, "application/json", headers={"Idempotency-Key": "one"})


def webhook(client: Client) -> Any:
    body = json.dumps({"ref": "main"}).encode()
    headers = {**GitHubSignature("HOOK").sign(body, SECRET), "X-GitHub-Delivery": "1"}
    return client.post("/api/webhooks/github/push", body, "application/json", headers=headers)


def view(client: Client) -> Any:
    return client.post("/order")


@pytest.mark.parametrize("post", [event, event_with_key, webhook, view])
def test_an_answer_comes_after_the_commit(commits: Commits, post: Callable[[Client], Any]) -> None:
    """An error first, with nothing kept; then the same request is accepted, and counts once."""
    sender = client()
    commits.fail = True
    assert post(sender).status_code >= 500
    assert OutboxItem.objects.count() == 0
    commits.fail = False
    answer = post(sender)
    assert answer.status_code in (201, 202), answer.content
    assert "Idempotency-Replayed" not in answer
    assert OutboxItem.objects.count() == 1


def test_a_streamed_answer_has_begun(commits: Commits) -> None:
    """What its parts emit is too late to be part of the answer, and fails by itself."""
    sender = client()
    answer = sender.post("/stream")
    commits.fail = True
    assert answer.status_code == 201, "the page may say less"
    with pytest.raises(Exception, match="disk is full"):
        b"".join(answer.streaming_content)
    commits.fail = False
    assert OutboxItem.objects.count() == 0
