"""Webhooks through Django's own handlers, with and without REST framework."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.models import OutboxItem
from automate_django.webhooks import WebhookView
from automate_kernel import Connector, TriggerSpec
from automate_kernel.base.errors import SecretUnavailableError
from automate_kernel.secrets import SecretsBackend
from automate_kernel.triggers.webhooks import GitHubSignature
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, RequestFactory, override_settings

PATH, SECRET = "/api/automate/webhooks/github/push", "a-webhook-secret"
BODY = json.dumps({"ref": "refs/heads/main", "text": "ü"}, ensure_ascii=False).encode()


class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec(
                "push", signature=GitHubSignature("HOOK"), delivery_id_header="X-GitHub-Delivery"
            )
        ]


class Secrets(SecretsBackend):
    """Has one secret, or is down."""

    down = False

    def get_secret(self, key: str) -> str:
        if Secrets.down:
            raise SecretUnavailableError("vault01 is down")
        return SECRET


@pytest.fixture(autouse=True)
def github(sqlite: str) -> Any:
    """A project that takes GitHub's webhooks."""
    Secrets.down = False
    with override_settings(AUTOMATE_CONNECTORS=[GitHub], AUTOMATE_SECRETS=[Secrets()]):
        yield


def signed(body: bytes = BODY, delivery: str = "d-1", **changed: str) -> dict[str, str]:
    """What GitHub sends, as Django names it."""
    headers = {"X-GitHub-Delivery": delivery, **GitHubSignature("HOOK").sign(body, SECRET)}
    return {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()} | changed


def send(path: str = PATH, body: bytes = BODY, **headers: str) -> Any:
    """A delivery; from no session, with no CSRF token, and with Django's checks on."""
    client = Client(enforce_csrf_checks=True)
    return client.post(path, body, content_type="application/json", **headers)


def test_a_signed_webhook_is_an_event() -> None:
    """202, from the bytes as they came."""
    response = send(**signed())
    assert (response.status_code, response.json()["duplicate"]) == (202, False)
    item = OutboxItem.objects.get(pk=response.json()["id"])
    assert (item.payload["name"], item.payload["payload"]["text"]) == ("github.push", "ü")


def test_a_delivery_counts_once() -> None:
    """200, and the first one's id."""
    first, second = send(**signed()), send(**signed())
    assert (second.status_code, second.json()) == (
        200,
        {"id": first.json()["id"], "duplicate": True},
    )
    assert OutboxItem.objects.count() == 1


def test_every_refusal_is_the_same() -> None:
    """A sender learns neither which connectors there are nor what was wrong."""
    bad = {"HTTP_X_HUB_SIGNATURE_256": "sha256=" + "0" * 64}
    refused = [
        send(**signed(**bad)),
        send(),
        send(body=BODY + b" ", **signed()),
        send("/api/automate/webhooks/github/none", **signed()),
        send("/api/automate/webhooks/none/push", **signed()),
        send("/api/automate/webhooks/chat/push", **signed()),
    ]
    told = {
        (answer.status_code, answer.content, tuple(sorted(answer.headers))) for answer in refused
    }
    assert len(told) == 1
    assert refused[0].status_code == 401
    assert not OutboxItem.objects.exists()


def test_other_methods_are_told_so() -> None:
    """405."""
    response = Client().get(PATH)
    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_a_long_body_is_refused_unread() -> None:
    """413, by Django's own limit."""
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        assert send(**signed()).status_code == 413


def test_a_body_that_is_no_json_is_told_so() -> None:
    """400: signed, but nothing can be done with it."""
    assert send(body=b"{", **signed(b"{")).status_code == 400


def raw(body: bytes = BODY, path: str = PATH, **environ: Any) -> Any:
    """The answer of the view to a request as a WSGI server hands it over."""
    request = WSGIRequest(
        {
            "REQUEST_METHOD": "POST", "PATH_INFO": path, "SCRIPT_NAME": "",
            "SERVER_NAME": "x", "SERVER_PORT": "80", "CONTENT_TYPE": "application/json",
            "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http", **signed(), **environ,
        }
    )  # fmt: skip
    return WebhookView.as_view()(request, connector="github", trigger="push")


def test_an_authentic_delivery_in_chunks_is_taken_where_its_end_is_known() -> None:
    """Django itself reads nothing without a Content-Length, and so a signature would be wrong."""
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked"}
    assert raw(**chunked, **{"wsgi.input_terminated": True}).status_code == 202
    assert OutboxItem.objects.get().payload["payload"]["text"] == "ü"
    assert raw(**chunked).status_code == 411
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        assert raw(**chunked, **{"wsgi.input_terminated": True}).status_code == 413


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"CONTENT_LENGTH": str(len(BODY)), "HTTP_TRANSFER_ENCODING": "chunked"}, 400),
        ({"CONTENT_LENGTH": "9" * 5_000}, 413),
        ({"CONTENT_LENGTH": "1_0"}, 400),
        (
            {"CONTENT_LENGTH": str(len(BODY)), "RAW_URI": "/api/automate/webhooks/github%2Fpush"},
            404,
        ),
        ({"CONTENT_LENGTH": str(len(BODY)), "RAW_URI": f"{PATH}?a=%2f"}, 202),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(environ: Any, status: int) -> None:
    """What stands in front may have read it in the other."""
    assert raw(**environ).status_code == status


@pytest.mark.parametrize("suffix", ["/", "/more"])
def test_other_spellings_of_the_path_lead_nowhere(suffix: str) -> None:
    """A slash more is another path."""
    assert send(PATH + suffix, **signed()).status_code == 404
    assert send(f"/{PATH}", **signed()).status_code == 404


def test_a_ping_starts_nothing() -> None:
    """200, as GitHub wants it."""
    response = send(**signed(HTTP_X_GITHUB_EVENT="ping"))
    assert (response.status_code, response.json()) == (200, {"ignored": "a ping"})
    assert not OutboxItem.objects.exists()


def test_while_secrets_are_away_the_sender_keeps_it() -> None:
    """503: it comes again, and nothing of the reason shows."""
    Secrets.down = True
    response = send(**signed())
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert b"vault01" not in response.content


def test_the_request_is_no_transaction_around_it() -> None:
    """With ATOMIC_REQUESTS a failure that is answered would be committed by halves."""
    for alias in ("default", "where-the-outbox-is"):
        assert alias in WebhookView.as_view()._non_atomic_requests
    assert WebhookView.as_view().csrf_exempt is True


def test_a_projects_own_view_says_whose_it_is() -> None:
    """A path per tenant, say."""

    class Own(WebhookView):
        def get_tenant_id(self, request: Any, connector: str, trigger: str) -> str:
            return self.kwargs["tenant"]

    request = RequestFactory().post("/", BODY, content_type="application/json", **signed())
    response = Own.as_view()(request, connector="github", trigger="push", tenant="acme")
    assert response.status_code == 202
    assert OutboxItem.objects.get().tenant_id == "acme"


def test_it_needs_no_rest_framework() -> None:
    """The module imports nothing of it."""
    import subprocess
    import sys

    code = """
import sys
from django.conf import settings
settings.configure(INSTALLED_APPS=["automate_django"], DATABASES={}, USE_TZ=True)
import django
django.setup()
from automate_django.webhooks import urlpatterns
assert urlpatterns[0].resolve("webhooks/github/push").kwargs["trigger"] == "push"
assert not [name for name in sys.modules if name.startswith("rest_framework")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert get_kernel() is not None
