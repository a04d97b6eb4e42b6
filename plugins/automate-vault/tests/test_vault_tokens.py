"""Logins, and the life of a token: renewed in time, replaced when it is gone."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
from functools import partial
import pytest
from automate_kernel.base.errors import ErrorCodes, SecretDeniedError, SecretUnavailableError
from automate_vault import AppRoleLogin, KubernetesLogin, TokenLogin, tokens, VaultBackend
from mortal_process import ends
from vault_support import READ_ALL, Bao
from waiting import at_once


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(autouse=True)
def app(bao: Bao) -> None:
    bao.write("app", value="value-of-app")


def made(bao: Bao, auth: Any) -> tuple[VaultBackend, Clock]:
    """Return a backend whose time stands still, and its clock."""
    backend, clock = VaultBackend(bao.url, auth=auth), Clock()
    backend._keeper._clock = clock
    return backend, clock


def own(bao: Bao, backend: VaultBackend) -> dict[str, Any]:
    """Return the server's word on the backend's token."""
    token = backend._keeper._token
    assert token is not None
    return bao.post("auth/token/lookup", {"token": token.value})["data"]


def accessors(bao: Bao) -> set[str]:
    """Return what names the tokens that there are; one of an earlier test may go at any time."""
    return set(bao.request("LIST", "auth/token/accessors")["data"]["keys"])


def test_a_token_is_renewed_before_its_end(bao: Bao) -> None:
    backend, clock = made(bao, AppRoleLogin(**bao.role("renewed")))
    backend.get_secret("app")
    first = own(bao, backend)
    assert "last_renewal" not in first
    clock.time = 1800
    backend.get_secret("app")
    assert "last_renewal" not in own(bao, backend)
    clock.time = 2700
    backend.get_secret("app")
    renewed = own(bao, backend)
    assert renewed["id"] == first["id"]
    assert "last_renewal" in renewed
    backend.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_has_a_token_of_its_own(bao: Bao) -> None:
    """It revokes it at its end, and its parent goes on with the other one."""
    backend = VaultBackend(bao.url, auth=AppRoleLogin(**bao.role("forked")))
    assert backend.get_secret("app") == "value-of-app"
    parents = own(bao, backend)["id"]

    def use() -> None:
        assert backend.get_secret("app") == "value-of-app"
        assert own(bao, backend)["id"] != parents
        backend.close()

    assert ends(use)
    assert own(bao, backend)["id"] == parents
    assert backend.get_secret("app") == "value-of-app"
    backend.close()


def test_where_renewals_give_little_there_is_a_new_login(bao: Bao) -> None:
    """The longest time of a token is near; the old one would end in the middle of the work."""
    backend, clock = made(bao, AppRoleLogin(**bao.role("capped", token_explicit_max_ttl="1h")))
    backend.get_secret("app")
    token = backend._keeper._token
    bao.post("auth/approle/role/capped", {"token_ttl": "3h", "token_explicit_max_ttl": "3h"})
    backend._keeper._token = type(token)(token.value, True, 10800.0, 0.0, 10.0)
    clock.time = 5
    backend.get_secret("app")
    assert own(bao, backend)["id"] != token.value
    assert own(bao, backend)["creation_ttl"] == 10800
    backend.close()


@pytest.mark.parametrize("how", ["revoked", "ended", "used_up"])
def test_a_token_that_is_gone_is_replaced(bao: Bao, how: str) -> None:
    options = {"token_num_uses": 4} if how == "used_up" else {}
    backend, clock = made(bao, AppRoleLogin(**bao.role(f"gone-{how}", **options)))
    backend.get_secret("app")
    before = own(bao, backend)["id"]
    if how == "ended":
        clock.time = 3601
    if how != "used_up":
        bao.post("auth/token/revoke", {"token": before})
    for _ in range(5):
        assert backend.get_secret("app") == "value-of-app"
    assert own(bao, backend)["id"] != before
    backend.close()


def test_tokens_without_renewal_are_replaced_in_time(bao: Bao) -> None:
    backend, clock = made(bao, AppRoleLogin(**bao.role("batch", token_type="batch")))
    backend.get_secret("app")
    before = own(bao, backend)["id"]
    clock.time = 2600
    backend.get_secret("app")
    assert own(bao, backend)["id"] != before
    backend.close()


def test_a_denied_read_ends_no_token(bao: Bao) -> None:
    """403 means both; the token is asked about itself, and no login is made for nothing."""
    bao.post(
        "sys/policies/acl/little", {"policy": 'path "secret/data/app" { capabilities = ["read"] }'}
    )
    role = bao.role("little", token_policies=["default", "little"])
    backend, _ = made(bao, AppRoleLogin(**role))
    backend.get_secret("app")
    before = own(bao, backend)["id"]
    for _ in range(3):
        with pytest.raises(SecretDeniedError):
            backend.get_secret("others")
    assert own(bao, backend)["id"] == before
    backend.close()


def test_many_threads_make_one_login(bao: Bao) -> None:
    backend, _ = made(bao, AppRoleLogin(**bao.role("crowd")))
    before = accessors(bao)
    at_once(*[partial(backend.get_secret, "app")] * 16)
    assert len(accessors(bao) - before) == 1
    backend.close()


def test_closing_leaves_no_token_behind(bao: Bao) -> None:
    before = accessors(bao)
    backend, _ = made(bao, AppRoleLogin(**bao.role("closed")))
    backend.get_secret("app")
    backend.close()
    assert accessors(bao) <= before
    assert backend.get_secret("app") == "value-of-app"  # it can be used again
    backend.close()


def test_a_token_that_nobody_uses_is_kept_alive(bao: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was given can't be had again, so it must outlive a quiet night: here 20 s."""
    # Early, so that a busy machine has the rest of the time for it.
    monkeypatch.setattr(tokens.random, "uniform", lambda *_: 0.05)
    token = bao.token(READ_ALL, period="20s", ttl="20s")
    backend = VaultBackend(bao.url, auth=TokenLogin(token=token))
    assert backend.get_secret("app") == "value-of-app"
    deadline = time.monotonic() + 30
    while "last_renewal" not in (found := bao.post("auth/token/lookup", {"token": token})["data"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found["ttl"] > 0
    backend.close()
    assert bao.post("auth/token/lookup", {"token": token})["data"]["id"] == token  # not ours to end


def test_a_token_that_was_given_and_is_gone_is_denied(bao: Bao) -> None:
    token = bao.token(READ_ALL)
    backend, _ = made(bao, TokenLogin(token=token))
    backend.get_secret("app")
    bao.post("auth/token/revoke", {"token": token})
    with pytest.raises(SecretDeniedError) as caught:
        backend.get_secret("app")
    assert token not in str(caught.value)
    backend.close()


def test_the_file_of_a_token_is_read_again(bao: Bao, tmp_path: Path) -> None:
    """Vault's agent writes a new one."""
    file = tmp_path / "token"
    backend, _ = made(bao, TokenLogin(token_file=file))
    with pytest.raises(SecretUnavailableError, match="token_file"):
        backend.get_secret("app")
    first = bao.token(READ_ALL)
    file.write_text(f"{first}\n")
    assert backend.get_secret("app") == "value-of-app"
    file.write_text(bao.token(READ_ALL))
    bao.post("auth/token/revoke", {"token": first})
    assert backend.get_secret("app") == "value-of-app"
    backend.close()


def test_a_wrong_secret_id_is_denied(bao: Bao, tmp_path: Path) -> None:
    role = bao.role("wrong")
    file = tmp_path / "secret-id"
    file.write_text("canary-of-a-secret-id")
    backend, _ = made(
        bao, {"method": "approle", "role_id": role["role_id"], "secret_id_file": file}
    )
    with pytest.raises(SecretDeniedError, match="approle") as caught:
        backend.get_secret("app")
    assert caught.value.code == ErrorCodes.UNAUTHENTICATED
    assert "canary" not in f"{caught.value}{vars(backend)}"
    file.write_text(role["secret_id"])
    assert backend.get_secret("app") == "value-of-app"
    backend.close()


def _jwt(account: str) -> str:
    """Return a service account's token as Kubernetes makes them, with a signature of nobody."""
    about = {"namespace": "shop", "serviceaccount": {"name": account, "uid": "u-1"}}
    subject = f"system:serviceaccount:shop:{account}"
    claims = {"iss": "kubernetes/serviceaccount", "sub": subject, "kubernetes.io": about}
    parts = ({"alg": "RS256"}, claims, "signature")
    coded = (base64.urlsafe_b64encode(json.dumps(each).encode()) for each in parts)
    return b".".join(each.rstrip(b"=") for each in coded).decode()


class TokenReviews(BaseHTTPRequestHandler):
    """The part of Kubernetes that Vault asks whether a service account's token is real."""

    good = _jwt("worker")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = asked["spec"]["token"] == self.good
        status: dict[str, Any] = {"authenticated": right}
        if right:
            user = {"username": "system:serviceaccount:shop:worker", "uid": "u-1"}
            status["user"] = {**user, "groups": ["system:serviceaccounts"]}
        body = json.dumps({**asked, "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def kubernetes(bao: Bao) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), TokenReviews) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        bao.post("sys/auth/kubernetes", {"type": "kubernetes"})
        config = {"kubernetes_host": f"http://127.0.0.1:{server.server_port}"}
        config |= {"disable_local_ca_jwt": True, "token_reviewer_jwt": TokenReviews.good}
        # It must be given; over HTTP nothing is checked with it.
        config["kubernetes_ca_cert"] = Path(certifi.where()).read_text().partition("\n\n#")[0]
        bao.post("auth/kubernetes/config", config)
        bao.post("sys/policies/acl/reader", {"policy": READ_ALL})
        role = {"bound_service_account_names": "worker", "bound_service_account_namespaces": "shop"}
        bao.post("auth/kubernetes/role/shop", {**role, "token_policies": ["reader", "default"]})
        yield
        bao.request("DELETE", "sys/auth/kubernetes")
        server.shutdown()


def test_a_pod_logs_in_with_its_service_account(bao: Bao, kubernetes: None, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(_jwt("somebody"))
    backend, _ = made(bao, KubernetesLogin(role="shop", jwt_file=file))
    with pytest.raises(SecretDeniedError, match="kubernetes login"):
        backend.get_secret("app")
    file.write_text(TokenReviews.good)  # Kubernetes rotates it
    assert backend.get_secret("app") == "value-of-app"
    # The name of a role is no secret, and may be a word that stands in any log.
    shown = backend._api.redactor.redact(f"the shop got {TokenReviews.good}")
    assert shown.startswith("the shop got ")
    assert TokenReviews.good not in shown
    backend.close()
