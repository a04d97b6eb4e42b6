"""Keys, engines, namespaces, and what falls through to the next backend."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import (
    ConfigError,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import MemorySecretsBackend, SecretResolver
from automate_vault import VaultBackend
from automate_vault.paths import SecretPath, parse_key
from hypothesis import given
from hypothesis import strategies as st
from vault_support import ROOT, Bao
from waiting import until

Made = Callable[..., VaultBackend]
TOKEN = {"method": "token", "token": ROOT}


@pytest.fixture
def vault(bao: Bao) -> Iterator[Made]:
    made: list[VaultBackend] = []

    def make(**options: Any) -> VaultBackend:
        made.append(VaultBackend(options.pop("address", bao.url), **{"auth": TOKEN, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("app", ("secret", "app", "value", None)),
        ("app/db#password", ("secret", "app/db", "password", None)),
        ("app/db#password@3", ("secret", "app/db", "password", 3)),
        ("app@12", ("secret", "app", "value", 12)),
        ("legacy/app#key", ("legacy", "app", "key", None)),
        ("team/kv/app#key", ("team/kv", "app", "key", None)),
        ("secret/app", ("secret", "app", "value", None)),
        ("users/ada@example.com#mail", ("secret", "users/ada@example.com", "mail", None)),
    ],
)
def test_a_key_names_mount_path_field_and_version(key: str, place: Any) -> None:
    assert parse_key(key, ("secret", "legacy", "team/kv")) == SecretPath(*place)


@given(st.text(max_size=60))
def test_no_key_leads_out_of_its_mount(key: str) -> None:
    """Whatever stands in it, its URL has no part that means another place, and no query."""
    place = parse_key(key, ("secret", "team/kv"))
    if place is not None:
        assert not {"", ".", ".."} & set(place.quoted.split("/"))
        assert not set("?#%") & set(place.path)
        assert place.mount in ("secret", "team/kv")


def test_fields_versions_and_values_that_are_no_text(bao: Bao, vault: Made) -> None:
    bao.write("kinds", password="old-password", port=5432)
    bao.write("kinds", password="new-password", port=5433, account={"id": "a-1"})
    backend = vault()
    assert backend.get_secret("kinds#password") == "new-password"
    assert backend.get_secret("kinds#password@1") == "old-password"
    assert backend.get_secret("kinds#port") == "5433"
    assert backend.get_secret("kinds#account") == '{"id": "a-1"}'
    for missing in ("kinds", "kinds#no-field", "kinds#account@1", "kinds#password@9"):
        with pytest.raises(SecretNotFoundError):
            backend.get_secret(missing)


def test_a_rotated_secret_counts_at_once(bao: Bao, vault: Made) -> None:
    backend = vault()
    for value in ("first-value", "second-value"):
        bao.write("rotated", value=value)
        assert backend.get_secret("rotated") == value


def test_deleted_and_destroyed_versions_are_not_there(bao: Bao, vault: Made) -> None:
    bao.write("gone", value="first-value")
    bao.write("gone", value="second-value")
    bao.post("secret/destroy/gone", {"versions": [1]})
    bao.request("DELETE", "secret/data/gone")
    for key in ("gone", "gone@1", "gone@2"):
        with pytest.raises(SecretNotFoundError):
            vault().get_secret(key)


def test_several_mounts_of_both_versions(bao: Bao, vault: Made) -> None:
    bao.write("both", value="of-secret")
    bao.post("legacy/both", {"value": "of-legacy"})
    bao.post("team/kv/data/both", {"data": {"value": "of-team"}})
    backend = vault(mounts=["legacy", "team/kv"])
    read = [backend.get_secret(key) for key in ("both", "legacy/both", "team/kv/both")]
    assert read == ["of-secret", "of-legacy", "of-team"]
    with pytest.raises(SecretError, match="keeps no versions") as caught:
        backend.get_secret("legacy/both@1")
    assert not isinstance(caught.value, SecretNotFoundError)


def test_an_engine_that_is_upgraded_while_the_process_runs(bao: Bao, vault: Made) -> None:
    """Nothing seems to be missing then, which would fall through."""
    bao.mount("growing", "1")
    bao.post("growing/app", {"value": "kept-value"})
    backend = vault(mount="growing")
    assert backend.get_secret("app") == "kept-value"
    bao.post("sys/mounts/growing/tune", {"options": {"version": "2"}})
    backend_after = vault(mount="growing")
    _until(lambda: backend_after.get_secret("app") == "kept-value")
    _until(lambda: backend.get_secret("app") == "kept-value")


def _until(holds: Callable[[], bool]) -> None:
    def held() -> bool:
        try:
            return holds()
        except SecretError as error:
            assert not isinstance(error, SecretNotFoundError)
            return False

    until(held)


def test_denied_never_falls_through(bao: Bao, vault: Made) -> None:
    """The next backend has a value, which may be an old one. Nobody gets it."""
    token = bao.token('path "secret/data/mine" { capabilities = ["read"] }')
    bao.write("mine", value="own-value")
    bao.write("other", value="canary-of-others")
    backend = vault(auth={"method": "token", "token": token})
    resolver = SecretResolver([backend, MemorySecretsBackend({"other": "old", "absent": "old"})])
    assert resolver.get("mine") == "own-value"
    for key in ("other", "absent"):  # this token may not even know whether it is there
        with pytest.raises(SecretDeniedError) as caught:
            resolver.get(key)
        assert not caught.value.retryable
        assert token not in "".join(traceback.format_exception(caught.value))


def test_a_mount_that_is_not_there_is_no_missing_secret(vault: Made) -> None:
    backend = vault(mount="no-such-mount")
    with pytest.raises(SecretError) as caught:
        backend.get_secret("app")
    assert not isinstance(caught.value, SecretNotFoundError)


@contextmanager
def answering(body: str, status: int = 200, version: str = "2") -> Iterator[str]:
    """The address of what stands before Vault, and answers reads of secrets like this."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            engine = {"data": {"type": "kv", "options": {"version": version}}}
            vaults = {"sys/internal/ui/mounts/secret": engine, "auth/token/lookup-self": {}}
            said = vaults.get(self.path.removeprefix("/v1/"))
            content = (body if said is None else json.dumps(said)).encode()
            self.send_response(status if said is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("body", ["", '{"status": "ok"}', '{"data": null}'])
def test_a_success_of_a_proxy_is_no_missing_secret(vault: Made, version: str, body: str) -> None:
    """Else the next backend would be asked, while a page of maintenance is in the way."""
    with answering(body, version=version) as address:
        with pytest.raises(SecretError, match="no secret in it") as caught:
            vault(address=address).get_secret("app")
    assert not isinstance(caught.value, SecretNotFoundError)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "body",
    [
        '{"errors": ["no handler for route"]}', '{"errors": ["the backend is away"]}',
        '{"errors": "away"}', '{"errors": null}', '{"errors": {}}', '{"data": null}',
        '{"data": {}}', '{"data": {"data": null}}', '{"data": {"metadata": null}}',
        '{"data": null, "warnings": ["Invalid path for a versioned K/V secrets engine"]}',
    ],
)  # fmt: skip
def test_a_404_with_words_is_no_missing_secret(vault: Made, version: str, body: str) -> None:
    """Vault's own for a secret that isn't there has an empty list of errors, and no words."""
    with answering(body, 404, version) as address:
        with pytest.raises(SecretError, match="can't read from the mount") as caught:
            vault(address=address).get_secret("app")
    assert not isinstance(caught.value, SecretNotFoundError)
    with answering('{"errors": []}', 404, version) as address, pytest.raises(SecretNotFoundError):
        vault(address=address).get_secret("app")


def test_an_engine_that_is_being_upgraded_is_worth_another_attempt(vault: Made) -> None:
    """It refuses all requests until it is ready."""
    said = (
        "Upgrading from non-versioned to versioned data. This backend will be unavailable for a"
        " brief period and will resume service shortly."
    )
    with answering(json.dumps({"errors": [said]}), 400) as address:
        with pytest.raises(SecretUnavailableError, match="upgrading") as caught:
            vault(address=address).get_secret("app")
    assert caught.value.retryable


def test_another_kind_of_engine_is_refused(vault: Made) -> None:
    with pytest.raises(SecretError, match="no key-value engine"):
        vault(mount="cubbyhole").get_secret("app")


def test_namespaces_are_apart(bao: Bao, vault: Made) -> None:
    bao.post("sys/namespaces/team-a")
    bao.mount("secret", "2", namespace="team-a")
    bao.write("where", value="in-the-root")
    bao.write("where", namespace="team-a", value="in-team-a")
    assert vault(namespace="team-a").get_secret("where") == "in-team-a"
    assert vault().get_secret("where") == "in-the-root"
    with pytest.raises(SecretError) as caught:
        vault(namespace="team-b").get_secret("where")
    assert not isinstance(caught.value, SecretNotFoundError)


def test_a_sealed_server_may_be_asked_again(own_bao: Bao) -> None:
    own_bao.write("app", value="value-of-app")
    backend = VaultBackend(own_bao.url, auth=TOKEN)
    assert backend.get_secret("app") == "value-of-app"
    own_bao.request("PUT", "sys/seal")
    with pytest.raises(SecretUnavailableError, match="sealed") as caught:
        backend.get_secret("app")
    assert caught.value.retryable
    backend.close()


def test_the_certificate_is_checked(tls_bao: Bao) -> None:
    tls_bao.write("app", value="value-of-app")
    backend = VaultBackend(tls_bao.url, auth=TOKEN, ca_file=str(tls_bao.ca_file))
    assert backend.get_secret("app") == "value-of-app"
    backend.close()
    unknown = VaultBackend(tls_bao.url, auth=TOKEN)
    with pytest.raises(SecretError, match="certificate") as caught:
        unknown.get_secret("app")
    assert not caught.value.retryable
    unknown.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"address": "http://vault.example.com:8200"}, "not https"),
        ({"mount": "../sys"}, "mount"),
        ({"ca_file": "/no/such.pem"}, "ca_file"),
        ({"auth": {"method": "approl"}}, "auth"),
        ({"auth": {"method": "token"}}, "one of token"),
        ({"auth": {"method": "approle", "role_id": "r", "secret_ids": "canary"}}, "secret_ids"),
    ],
)
def test_a_wrong_config_says_so_at_once(vault: Made, options: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        vault(**options)
    assert "canary" not in str(caught.value)


def test_without_an_address_the_variables_count(bao: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Vault's own command line; so the key alone is enough."""
    with pytest.raises(ConfigError, match="VAULT_ADDR"):
        VaultBackend()
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    monkeypatch.setenv("VAULT_TOKEN", ROOT)
    bao.write("app/mail", password="password-of-mail")
    with Kernel(secrets=["vault"]) as kernel:

        @kernel.action("mail.length")
        def length(password: str) -> int:
            return len(password)

        assert kernel.invoke("mail.length", {"password": "$secret:app/mail#password"}) == 16


def test_the_key_with_options(bao: Bao) -> None:
    bao.write("app", value="value-of-app")
    options = {"backend": "vault", "address": bao.url, "auth": TOKEN}
    with Kernel(secrets=[options]) as kernel:
        assert kernel.secrets.get("app") == "value-of-app"
    with pytest.raises(ConfigError, match="doesn't take these options"):
        Kernel(secrets=[{**options, "adress": "x"}])


def test_no_token_in_what_is_shown(bao: Bao, vault: Made, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    bao.write("app", value="value-of-app")
    backend = vault()
    backend.get_secret("app")
    assert ROOT not in caplog.text + repr(backend) + str(vars(backend))
    assert "value-of-app" not in caplog.text
    assert backend.remedy("app/db#password") == "vault kv put -mount=secret app/db password=…"
    assert backend.remedy("../x") == ""
    assert backend.remedy("a'; id#f") == """vault kv put -mount=secret 'a'"'"'; id' f=…"""
