"""``Idempotency-Key``: carried out once, answered as often as asked."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.api.bases.idempotency import answer_once
from automate_django.models import ApiToken, IdempotencyRecord, OutboxItem
from automate_django.storage import DjangoStorage
from automate_kernel.http.api.idempotency import KeyedRequest
from automate_kernel.http.api.problems import ApiError
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone
from rest_framework.response import Response
from rest_framework.test import APIClient
from service.models import Note
from shopsite.routing import TestedDatabase

ONCE, EVENTS = "/service/once/", "/api/automate/events"


def post(client: APIClient, text: str = "a", key: str = "k1", path: str = ONCE) -> Any:
    """A request with a key."""
    return client.post(path, {"text": text}, format="json", HTTP_IDEMPOTENCY_KEY=key)


def keyed(key: str) -> KeyedRequest:
    """A request with a key, of one and the same client."""
    return KeyedRequest(DjangoStorage(), lambda value: value, "owner", key, "print")


def test_the_same_request_has_the_same_answer(world: Any) -> None:
    """One row; the second answer is the first, and says that it is."""
    client = world.client()
    first, second = post(client), post(client)
    assert [first.status_code, second.status_code] == [201, 201]
    assert first.json() == second.json()
    assert second["Location"] == "/there"
    assert not first.has_header("Idempotency-Replayed")
    assert second["Idempotency-Replayed"] == "true"
    assert Note.objects.count() == 1


def test_another_request_with_the_key_is_refused(world: Any) -> None:
    """422: it would get an answer to something else."""
    client = world.client()
    post(client)
    response = post(client, "b")
    assert (response.status_code, response.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert Note.objects.count() == 1


def test_without_a_key_each_is_carried_out(world: Any) -> None:
    """As ever."""
    client = world.client()
    for _ in range(2):
        assert client.post(ONCE, {"text": "a"}, format="json").status_code == 201
    assert Note.objects.count() == 2


def test_keys_belong_to_who_sends_them(world: Any, token: Any) -> None:
    """Another user's, tenant's or token's answer is never given away."""
    tenant = str(world.acme.pk)
    clients = [
        world.client(),
        world.client(world.roman),
        token("*", tenant_id=tenant),
        token("*", tenant_id=tenant),
        token("*", tenant_id=str(world.rival.pk), user=world.alice),
    ]
    answers = [post(client) for client in clients]
    assert [answer.status_code for answer in answers] == [201] * 5
    assert not any(answer.has_header("Idempotency-Replayed") for answer in answers)
    assert Note.objects.count() == 5


def test_what_was_not_valid_can_be_corrected(world: Any) -> None:
    """An error leaves the key free."""
    client = world.client()
    assert post(client, "").status_code == 400
    assert post(client, "a").status_code == 201
    assert Note.objects.count() == 1


def test_a_failure_takes_its_work_along(world: Any) -> None:
    """What was written before a bug is rolled back, so that trying again does it once."""
    client = world.client()
    assert post(client, "break").status_code == 500
    assert Note.objects.count() == 0
    assert not IdempotencyRecord.objects.exists()


def test_with_atomic_requests(world: Any) -> None:
    """Inside the request's own transaction it is the same."""
    settings = connections["default"].settings_dict
    settings["ATOMIC_REQUESTS"] = True
    try:
        client = world.client()
        assert post(client, "break").status_code == 500
        assert (Note.objects.count(), IdempotencyRecord.objects.count()) == (0, 0)
        assert post(client).status_code == 201
        assert post(client)["Idempotency-Replayed"] == "true"
    finally:
        settings["ATOMIC_REQUESTS"] = False
    assert Note.objects.count() == 1


def test_an_answer_is_kept_once_the_request_has_committed_in_another_database(
    sqlite: str, postgresql_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ATOMIC_REQUESTS that may fail: the next request would get an answer to no work."""
    monkeypatch.setattr(TestedDatabase, "db_for_read", lambda *_, **__: postgresql_alias)
    monkeypatch.setattr(TestedDatabase, "db_for_write", lambda *_, **__: postgresql_alias)
    monkeypatch.setitem(connections[sqlite].settings_dict, "ATOMIC_REQUESTS", True)
    IdempotencyRecord.objects.all().delete()
    with pytest.raises(RuntimeError), transaction.atomic(using=sqlite):
        answer_once(keyed("lost"), lambda: Response({"id": 1}, status=201))
        raise RuntimeError("the commit")
    with pytest.raises(ApiError, match="is being answered"):
        answer_once(keyed("lost"), lambda: Response({"id": 2}, status=201))
    with transaction.atomic(using=sqlite):
        answer_once(keyed("done"), lambda: Response({"id": 3}, status=201))
    assert answer_once(keyed("done"), lambda: Response({"id": 4}, status=201)).data == {"id": 3}

    def taken_over() -> Response:
        IdempotencyRecord.objects.filter(pk=keyed("late").id).update(lock="another")
        return Response({"id": 5}, status=201)

    def refused() -> Response:
        transaction.set_rollback(True, using=sqlite)
        return Response({"id": 6}, status=409)

    # Before the request commits, not after it.
    with pytest.raises(ApiError, match="is being answered"), transaction.atomic(using=sqlite):
        answer_once(keyed("late"), taken_over, atomic=False)
        pytest.fail("its work would stay, though the key is another's")
    for _ in range(2):  # the second time it is the kept answer
        with transaction.atomic(using=sqlite):
            assert answer_once(keyed("no"), refused).data == {"id": 6}


def test_while_it_is_answered_others_wait(world: Any, token: Any) -> None:
    """409, and when to come again."""
    client = token("*", tenant_id=str(world.acme.pk))
    post(client)
    IdempotencyRecord.objects.update(
        lock="another's", locked_until=timezone.now() + timedelta(seconds=30)
    )
    response = post(client)
    assert (response.status_code, response.json()["code"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert response["Retry-After"] == "1"


def test_a_lock_whose_process_died_ends(world: Any) -> None:
    """After a minute the request is carried out by whoever sends it again."""
    client = world.client()
    post(client)
    Note.objects.all().delete()
    IdempotencyRecord.objects.update(
        lock="dead", locked_until=timezone.now() - timedelta(seconds=1), status_code=None
    )
    assert post(client).status_code == 201
    assert Note.objects.count() == 1


def test_one_that_was_too_slow_is_rolled_back(sqlite: str) -> None:
    """Its lock was taken over while it worked: its work is not kept beside the other's."""

    def slowly() -> Response:
        Note.objects.create(tenant_id="slow", text="x")
        IdempotencyRecord.objects.update(lock="another's")
        return Response({"ok": True}, status=201)

    with pytest.raises(Exception, match="is being answered"):
        answer_once(keyed("key"), slowly)
    assert not Note.objects.filter(tenant_id="slow").exists()


def test_answers_are_forgotten(world: Any) -> None:
    """After ``IDEMPOTENCY_HOURS`` the key is new."""
    client = world.client()
    post(client)
    IdempotencyRecord.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not post(client, "b").has_header("Idempotency-Replayed")
    assert Note.objects.count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ü"])
def test_keys_that_are_none(world: Any, key: str) -> None:
    """400, before anything is done."""
    assert post(world.client(), key=key).status_code == 400
    assert Note.objects.count() == 0


def test_a_quoted_key_is_the_same(world: Any) -> None:
    """As the draft of the header writes it."""
    client = world.client()
    post(client, key='"k1"')
    assert post(client, key="k1")["Idempotency-Replayed"] == "true"


def test_no_secret_is_stored(world: Any) -> None:
    """An answer is kept without the secrets that the process knows, and without the request."""
    get_kernel().redactor.add("tok-51d0")
    post(world.client(), "my tok-51d0")
    record = IdempotencyRecord.objects.values().get()
    assert "tok-51d0" not in json.dumps(record, default=str)
    assert record["body"]["text"] == "my [secret]"
    assert "k1" not in str(IdempotencyRecord.objects.get())


@pytest.fixture
def racing(alias: str) -> Any:
    """A token on each database, and a request that is sent by several threads at once."""
    _, text = ApiToken.objects.issue("race", tenant_id="acme", scopes=["*"])
    barrier = threading.Barrier(6)

    def send(_: int) -> Any:
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
        barrier.wait()
        try:
            return client.post(
                EVENTS,
                {"name": "order.created", "payload": {"lines": []}},
                format="json",
                HTTP_IDEMPOTENCY_KEY="k1",
            )
        finally:
            connections.close_all()

    def race() -> list[Any]:
        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(send, range(6)))

    return race


def test_a_race_emits_one_event(racing: Any) -> None:
    """Each gets the one event's id, or is told to come again; there is one event."""
    get_kernel()  # made once, not by six threads
    with override_settings(REST_FRAMEWORK={}):
        answers = racing()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 202
    assert set(statuses) <= {202, 409}
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    items = OutboxItem.objects.filter(kind="automate.event")
    assert [str(item.pk) for item in items] == list(ids)
