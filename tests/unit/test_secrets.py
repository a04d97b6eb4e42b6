"""Secrets: backends, the order they are asked in, and handles that show nothing."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import pickle
import threading
from typing import Any

import pytest

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError, TemplateError
from automate_kernel.secrets import (
    EnvSecretsBackend,
    FileSecretsBackend,
    MemorySecretsBackend,
    Sealed,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretRef,
    SecretResolver,
    SecretsBackend,
    SecretUnavailableError,
    areveal,
    masked,
    reveal,
)
from automate_kernel.templates import TemplateContext, TemplateEngine
from automate_testing.contracts.secrets import SecretsBackendContract
from broken_places import broken_folders

VALUE = "correct-horse-battery-staple"


class TestMemoryBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, known_key, known_value):
        return MemorySecretsBackend({known_key: known_value})


class TestEnvBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, known_key, known_value):
        return EnvSecretsBackend("APP_", environ={f"APP_{known_key}": known_value})


class TestFileBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, tmp_path, known_key, known_value):
        (tmp_path / known_key).write_text(known_value, encoding="utf-8")
        return FileSecretsBackend(tmp_path)

    @pytest.fixture
    def broken(self, tmp_path, known_key, missing_key):
        return broken_folders(FileSecretsBackend, tmp_path / "broken", known_key, missing_key)


class FakeVault:
    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets

    def read(self, path: str) -> Any:
        value = self.secrets.get(path.removeprefix("secret/data/"))
        return {"data": {"value": value}} if value is not None else None


class VaultBackend(SecretsBackend):
    """HashiCorp Vault integration, as in the specification."""

    vault_client: FakeVault

    def get_secret(self, key: str) -> str:
        """Return the raw secret value."""
        response = self.vault_client.read(f"secret/data/{key}")
        if not response:
            raise SecretNotFoundError(key)
        return response["data"]["value"]


class TestVaultBackend(SecretsBackendContract):
    @pytest.fixture
    def backend(self, known_key, known_value):
        backend = VaultBackend()
        backend.vault_client = FakeVault({known_key: known_value})
        return backend


class Raising(SecretsBackend):
    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls = 0

    def get_secret(self, key: str) -> str:
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_the_wait_that_a_backend_asks_for_is_kept():
    """A step that is tried again waits for so long."""
    error = SecretUnavailableError("too many", code="RESOURCE_EXHAUSTED", retry_after=120.0)
    with pytest.raises(SecretUnavailableError) as caught:
        SecretResolver(Raising(error)).get("K")
    assert caught.value.retry_after == 120


# --- the built-in backends -------------------------------------------------------------------


def test_env_reads_only_its_prefix():
    """A key can't reach the rest of the environment."""
    backend = EnvSecretsBackend(environ={"PATH": "/bin", "AUTOMATE_SECRET_A": "1"})
    assert backend.get_secret("A") == "1"
    with pytest.raises(SecretNotFoundError):
        backend.get_secret("PATH")


def test_env_writes_a_key_as_a_variable_can_be_written():
    """Slashes and dashes become underscores, and upper case is tried too."""
    backend = EnvSecretsBackend(environ={"AUTOMATE_SECRET_STRIPE_API_KEY": VALUE})
    assert backend.get_secret("stripe/api-key") == VALUE


def test_env_empty_variable_counts_as_missing():
    """An empty variable is a mistake, not a secret."""
    with pytest.raises(SecretNotFoundError):
        EnvSecretsBackend(environ={"AUTOMATE_SECRET_A": ""}).get_secret("A")


def test_env_reads_the_real_environment(monkeypatch):
    """By default, and as it is at the look-up."""
    backend = EnvSecretsBackend()
    monkeypatch.setenv("AUTOMATE_SECRET_LATE", VALUE)
    assert backend.get_secret("LATE") == VALUE


def test_memory_copies_its_mapping():
    """Changing the mapping later changes nothing."""
    secrets = {"A": "1"}
    backend = MemorySecretsBackend(secrets)
    secrets.clear()
    assert backend.get_secret("A") == "1"


@pytest.mark.parametrize(
    ("content", "value"),
    [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("a", "a")],
)
def test_file_loses_one_newline_at_its_end(tmp_path, content, value):
    """Editors add a newline that nobody means."""
    (tmp_path / "K").write_bytes(content.encode())
    assert FileSecretsBackend(tmp_path).get_secret("K") == value


def test_file_as_kubernetes_mounts_it(tmp_path):
    """A key that is a link to a link within the directory is read."""
    (tmp_path / "..2024").mkdir()
    (tmp_path / "..2024" / "tls.key").write_text(VALUE)
    (tmp_path / "..data").symlink_to("..2024")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    assert FileSecretsBackend(tmp_path).get_secret("tls.key") == VALUE


def test_file_refuses_a_link_out_of_its_directory(tmp_path):
    """Whoever can write a link can't read other files."""
    (tmp_path / "outside").write_text(VALUE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "K").symlink_to(tmp_path / "outside")
    with pytest.raises(SecretDeniedError):
        FileSecretsBackend(tmp_path / "in").get_secret("K")


def test_file_does_not_wait_for_a_pipe(tmp_path):
    """A named pipe is no secret, and opening one would block. Nor is it a key that isn't there."""
    os.mkfifo(tmp_path / "K")
    with pytest.raises(SecretError, match="no file"):
        FileSecretsBackend(tmp_path).get_secret("K")


def test_file_without_its_directory_is_unavailable(tmp_path):
    """A volume that is not mounted must not look like a missing secret."""
    with pytest.raises(SecretUnavailableError, match="mounted"):
        FileSecretsBackend(tmp_path / "nowhere").get_secret("K")


@pytest.mark.parametrize("content", [b"\xff" + VALUE.encode(), VALUE.encode() * 4000])
def test_file_that_is_no_secret_is_refused_without_showing_it(tmp_path, content):
    """Binary or huge content is refused, and no error holds it."""
    (tmp_path / "K").write_bytes(content)
    with pytest.raises(SecretError) as caught:
        FileSecretsBackend(tmp_path).get_secret("K")
    assert VALUE not in str(caught.value)
    assert caught.value.__context__ is None


# --- the resolver ----------------------------------------------------------------------------


def get(resolver: SecretResolver, key: str, *, how: str) -> str:
    return resolver.get(key) if how == "sync" else asyncio.run(resolver.aget(key))


both = pytest.mark.parametrize("how", ["sync", "async"])


@both
def test_the_first_backend_that_has_the_key_answers(how):
    """Backends are asked in order."""
    resolver = SecretResolver(
        [MemorySecretsBackend(), MemorySecretsBackend({"K": VALUE}), Raising("other")]
    )
    assert get(resolver, "K", how=how) == VALUE


@both
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SecretDeniedError("no"), SecretDeniedError),
        (PermissionError("no"), SecretDeniedError),
        (SecretUnavailableError("down"), SecretUnavailableError),
        (TimeoutError("late"), SecretUnavailableError),
        (KeyError("K"), SecretUnavailableError),
        (RuntimeError("?"), SecretUnavailableError),
    ],
)
def test_only_not_found_falls_through(how, error, expected):
    """A refusal or failure ends the look-up, rather than quietly using an older value."""
    last = Raising(VALUE)
    with pytest.raises(expected):
        get(SecretResolver([Raising(error), last]), "K", how=how)
    assert last.calls == 0


@both
def test_a_strange_error_is_replaced_and_not_kept(how):
    """The text of a backend's error may hold the secret, so neither it nor its frames remain."""
    with pytest.raises(SecretUnavailableError) as caught:
        get(SecretResolver(Raising(ValueError(f"response: {VALUE}"))), "K", how=how)
    error = caught.value
    assert VALUE not in str(error)
    assert "ValueError" in str(error)
    assert error.__context__ is None
    assert error.__cause__ is None


@both
@pytest.mark.parametrize("result", [None, "", 7, b"bytes", {"value": VALUE}, "x" * 70_000])
def test_what_is_no_text_is_an_error(how, result):
    """None and empty text are never passed on as a secret."""
    with pytest.raises(SecretError) as caught:
        get(SecretResolver(Raising(result)), "K", how=how)
    assert not isinstance(caught.value, SecretNotFoundError)
    assert VALUE not in str(caught.value)
    assert "'K'" in str(caught.value)


def test_not_found_says_where_it_looked_and_what_to_do():
    """The error names the backends and the variable to set."""
    with pytest.raises(SecretNotFoundError) as caught:
        SecretResolver([EnvSecretsBackend(environ={}), MemorySecretsBackend()]).get("K")
    assert caught.value.key == "K"
    assert "not found in env, memory" in str(caught.value)
    assert "AUTOMATE_SECRET_K" in str(caught.value)


def test_no_backend_at_all_is_said():
    """The commonest mistake has its own remedy."""
    with pytest.raises(SecretNotFoundError, match="no secrets backend is configured"):
        SecretResolver().get("K")


@pytest.mark.parametrize("key", ["", "a\nb", "a\0b", "x" * 513, None, 3])
def test_impossible_keys_reach_no_backend(key):
    """They are refused before any look-up."""
    backend = Raising(VALUE)
    with pytest.raises(SecretError):
        SecretResolver(backend).get(key)
    assert backend.calls == 0


def test_values_are_redacted_before_they_are_returned():
    """What the resolver has given out, its redactor knows."""
    resolver = SecretResolver(MemorySecretsBackend({"K": VALUE}))
    assert resolver.redactor.redact(f"<{resolver.get('K')}>") == "<[secret]>"


def test_nothing_is_kept_by_default():
    """A rotated secret counts at once."""
    backend = Raising("first value")
    resolver = SecretResolver(backend)
    resolver.get("K")
    backend.result = "second value"
    assert resolver.get("K") == "second value"


@both
def test_a_session_looks_each_key_up_once(how):
    """One call of an action costs one look-up per secret."""
    backend = Raising(VALUE)
    resolver = SecretResolver(backend)
    with resolver.session():
        for _ in range(3):
            get(resolver, "K", how="sync")
        with resolver.session():
            get(resolver, "K", how=how)
    assert backend.calls == 1
    resolver.get("K")
    assert backend.calls == 2


def test_a_session_belongs_to_its_thread():
    """Another thread's look-ups are its own."""
    backend = Raising(VALUE)
    resolver = SecretResolver(backend)
    with resolver.session():
        resolver.get("K")
        thread = threading.Thread(target=resolver.get, args=("K",))
        thread.start()
        thread.join()
    assert backend.calls == 2


def test_two_resolvers_share_no_session():
    """The same key in two resolvers is two secrets."""
    one, two = SecretResolver(Raising("value one")), SecretResolver(Raising("value two"))
    with one.session(), two.session():
        assert [one.get("K"), two.get("K")] == ["value one", "value two"]


def test_check_reports_without_values():
    """A host can see at start-up which secrets are there."""
    resolver = SecretResolver(
        {"memory": MemorySecretsBackend({"A": VALUE}), "vault": Raising(SecretDeniedError("no"))}
    )
    report = resolver.check(["A", "B"])
    assert not report.ok
    assert [(s.key, s.ok, s.backend) for s in report.statuses] == [
        ("A", True, "memory"),
        ("B", False, "vault"),
    ]
    assert [s.problem for s in report.problems] == ["no"]
    assert VALUE not in repr(report)


def test_repr_names_backends_only():
    """Neither resolver nor backends show what they hold."""
    backend = MemorySecretsBackend({"K": VALUE})
    resolver = SecretResolver(backend)
    resolver.get("K")
    assert VALUE not in f"{resolver!r}{backend!r}{resolver.redactor!r}"


# --- handles ---------------------------------------------------------------------------------


HANDLES = [SecretRef("K"), Sealed("Bearer ", SecretRef("K"))]


@pytest.mark.parametrize("handle", HANDLES)
def test_handles_show_the_key_only(handle):
    """However it is printed, there is the key and no more."""
    texts = [str(handle), repr(handle), f"{handle}", f"{handle:>40}", f"{handle}", "%s" % handle]  # noqa: UP031
    assert {text.strip() for text in texts} == {str(handle)}
    assert "[secret K]" in str(handle)


@pytest.mark.parametrize("handle", HANDLES)
def test_handles_are_opaque(handle):
    """They can't be iterated, measured, indexed, changed or written out."""
    for attempt in (
        lambda: list(handle),
        lambda: len(handle),
        lambda: handle[0],
        lambda: "x" in handle,
        lambda: handle + "x",
        lambda: json.dumps(handle),
        lambda: pickle.dumps(handle),
        lambda: b"" + handle,
    ):
        with pytest.raises(TypeError):
            attempt()
    with pytest.raises(AttributeError):
        handle.key = "other"
    assert not hasattr(handle, "__dict__")
    assert copy.deepcopy({"a": [handle]})["a"][0] is handle


def test_reveal_puts_values_in_place():
    """At any depth, whole or within text, and nothing else changes."""
    tree = {"a": [SecretRef("K"), 1, None], "b": {"c": Sealed("x ", SecretRef("K"), " y")}}
    resolver = SecretResolver(MemorySecretsBackend({"K": VALUE}))
    expected = {"a": [VALUE, 1, None], "b": {"c": f"x {VALUE} y"}}
    assert reveal(tree, resolver) == expected
    assert asyncio.run(areveal(tree, resolver)) == expected


def test_reveal_looks_each_key_up_once():
    """However often it is used."""
    backend = Raising(VALUE)
    reveal([SecretRef("K")] * 5, SecretResolver(backend))
    assert backend.calls == 1


def test_reveal_leaves_the_tree_alone():
    """The tree with references may be kept; the result may not."""
    tree = {"a": [SecretRef("K")]}
    reveal(tree, SecretResolver(MemorySecretsBackend({"K": VALUE})))
    assert tree == {"a": [SecretRef("K")]}


def test_a_value_is_never_read_as_a_template():
    """A secret that looks like a reference stays what it is."""
    resolver = SecretResolver(MemorySecretsBackend({"K": "$secret:OTHER {{ 1 }}"}))
    assert reveal(SecretRef("K"), resolver) == "$secret:OTHER {{ 1 }}"


def test_masked_is_json():
    """A tree with references can be shown and stored."""
    tree = {"a": SecretRef("K"), "b": [Sealed("Bearer ", SecretRef("K"))], "c": 1}
    assert json.loads(json.dumps(masked(tree))) == {
        "a": "[secret K]",
        "b": ["Bearer [secret K]"],
        "c": 1,
    }


def test_a_reference_in_a_log_line_is_harmless(caplog):
    """Handles need no filter."""
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("calling with %s", {"auth": HANDLES})
    assert "[secret K]" in caplog.text


def test_errors_have_codes_for_retries():
    """A missing or denied secret won't appear by trying again; an outage may end."""
    codes: dict[type[AutomateError], ErrorCodes] = {
        SecretNotFoundError: ErrorCodes.NOT_FOUND,
        SecretDeniedError: ErrorCodes.PERMISSION_DENIED,
        SecretUnavailableError: ErrorCodes.UNAVAILABLE,
    }
    assert {kind: kind("K").code for kind in codes} == codes
    assert SecretUnavailableError("x").retryable
    assert not SecretDeniedError("x").retryable


# --- values that can't be hidden ----------------------------------------------------------------


@pytest.mark.parametrize("value", ["true", "False", "null", "ok", "1", " yes "])
def test_a_value_that_stands_in_every_text_is_refused(value):
    """Taking it out would ruin all data; the error doesn't show it."""
    resolver = SecretResolver(MemorySecretsBackend({"FLAG": value}))
    with pytest.raises(SecretError, match="can't be hidden") as caught:
        resolver.get("FLAG")
    assert "config" in str(caught.value)
    assert repr(value) not in str(caught.value)
    (status,) = resolver.check(["FLAG"]).problems
    assert "can't be hidden" in status.problem


@pytest.mark.parametrize("value", ["2024", "admin", "7a1", "password", "2024-01-01"])
def test_a_short_or_common_value_is_used_and_warned_of(value, caplog):
    """Once in the log, and at each check, without the value."""
    resolver = SecretResolver(MemorySecretsBackend({"PIN": value}))
    assert resolver.get("PIN") == value
    resolver.get("PIN")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "'PIN' is so short or common" in told[0]
    report = resolver.check(["PIN"])
    assert report.ok
    assert report.warnings[0].key == "PIN"
    assert value not in told[0] + report.warnings[0].warning


def test_a_good_value_is_not_warned_of(caplog):
    """Among them short passwords of mixed characters."""
    resolver = SecretResolver(MemorySecretsBackend({"A": "hunter2", "B": "sk_live_9d41b7c2"}))
    report = resolver.check(["A", "B"])
    assert (report.ok, report.warnings, caplog.records) == (True, (), [])


def test_a_backend_that_fails_to_close_keeps_no_other_open(caplog):
    """And what it says is logged without the secrets."""
    closed = []

    class Failing(MemorySecretsBackend):
        def close(self):
            raise RuntimeError("sk_live_9d41b7c2 is still in use")

    class Other(MemorySecretsBackend):
        def close(self):
            closed.append(True)

    resolver = SecretResolver([Failing({"A": "sk_live_9d41b7c2"}), Other()])
    resolver.get("A")
    resolver.close()
    assert closed == [True]
    assert "sk_live_9d41b7c2" not in caplog.text
    assert "[secret] is still in use" in caplog.text


def test_backends_have_their_keys_in_code_as_in_settings(tmp_path, monkeypatch):
    """``secrets = ["env", {backend = "file", …}]`` of a settings file is the same list here."""
    (tmp_path / "FROM_FILE").write_text("of-a-file-8812")
    monkeypatch.setenv("AUTOMATE_SECRET_FROM_ENV", "of-the-environment-8812")
    backends = ["env", {"backend": "file", "directory": tmp_path}]
    with Kernel(discover=False, secrets=backends) as kernel:
        assert kernel.secrets.get("FROM_FILE") == "of-a-file-8812"
        assert kernel.secrets.get("FROM_ENV") == "of-the-environment-8812"


def test_a_misspelt_key_of_a_backend_that_needs_no_plugin_is_told() -> None:
    """Only those of plugins were named."""
    for given in ("evn", {"backend": "evn"}):
        with pytest.raises(PluginError, match="did you mean 'env'.* there are: env, file, "):
            Kernel(secrets=[given], discover=False)


def test_a_backend_that_is_asynchronous_is_told_where_that_belongs() -> None:
    class Slow(SecretsBackend):
        async def get_secret(self, key: str) -> str:  # type: ignore[override]
            return "value"

    with pytest.raises(SecretError, match="aget_secret is the one that may be async"):
        SecretResolver([Slow()]).get("KEY")


def test_a_large_secret_in_a_loop_is_refused():
    """Each reference expands to its value: together they would take gigabytes."""
    engine = TemplateEngine()
    text = "{% for n in range(3000) %}{{ secrets.BIG }}{% endfor %}"
    resolver = SecretResolver([MemorySecretsBackend({"BIG": "s" * 60_000})])
    trees = [
        engine.compile({"a": text}).render(TemplateContext()),
        {"a": [SecretRef("BIG")] * 3000},
        {"a": [Sealed("x", SecretRef("BIG"))] * 3000},
    ]
    for tree in trees:
        for how in (
            lambda tree: reveal(tree, resolver),
            lambda t: asyncio.run(areveal(t, resolver)),
        ):
            with pytest.raises(
                SecretError, match="the secrets of one call take more than"
            ) as caught:
                how(tree)
            assert not caught.value.retryable
    assert reveal({"a": [SecretRef("BIG")] * 30}, resolver)["a"][29] == "s" * 60_000


def test_references_count_towards_a_templates_output():
    """As long as they are shown, however many a loop makes of them."""
    macro = "{% for n in range(50000) %}{{ secrets." + "K" * 200 + " }}{% endfor %}"
    with pytest.raises(TemplateError, match="more than 1,000,000 characters"):
        TemplateEngine().compile({"a": macro}).render(TemplateContext())
