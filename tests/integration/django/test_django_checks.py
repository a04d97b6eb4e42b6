"""What ``manage.py check`` says about wrong settings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from automate_django import aemit, conf, emit, get_kernel
from automate_django.api import BaseAPIView
from automate_django.api.tokens import ApiTokenAuthentication
from automate_django.checks import check_database, check_settings
from automate_django.kernel import forget_kernel
from automate_django.outbox import OptimisticClaimOutboxStore
from automate_django.storage import DjangoStorage
from automate_django.tenants import tenant_for_request
from automate_kernel import hookimpl
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.kernel import Kernel
from automate_kernel.plugins import discovery
from django.core.checks import WARNING, run_checks
from django.db import OperationalError, connections
from django.test import RequestFactory, override_settings


def test_a_right_project_has_nothing_to_hear(sqlite: str) -> None:
    """The test project passes every check of Django's, too."""
    # Of this database alone: other tests add a MariaDB, of which Django 6.1 says what it lacks.
    assert run_checks(databases=[sqlite]) == []


@pytest.mark.parametrize(
    ("settings", "id", "words"),
    [
        ({"AUTOMATE_PROVIDER": []}, "automate.W001", "Did you mean AUTOMATE_PROVIDERS?"),
        ({"AUTOMATE_OUTBOX": {"LEASE_SECOND": 3}}, "automate.W001", "Did you mean LEASE_SECONDS?"),
        ({"AUTOMATE_OUTBOX": {"lease_seconds": 3}}, "automate.W001", "Did you mean LEASE_SECONDS?"),
        ({"AUTOMATE_PROVIDERS": "shop.x"}, "automate.E002", "write ['shop.x']"),
        ({"AUTOMATE_CONFIG": []}, "automate.E002", "must be a dictionary"),
        ({"AUTOMATE_PROVIDERS": ["shop.nothing.X"]}, "automate.E003", "No module named"),
        ({"AUTOMATE_CONNECTORS": ["shop.automation.X"]}, "automate.E003", "has no 'X'"),
        ({"AUTOMATE_SECRETS": [{"BACKEND": "shop.Vault"}]}, "automate.E003", "shop.Vault"),
        ({"AUTOMATE_OUTBOX": {"STORE": "skiplocked"}}, "automate.E004", "'optimistic'"),
        ({"AUTOMATE_WORKFLOWS": ["no/such.yaml"]}, "automate.E005", "there is no file"),
        ({"AUTOMATE_WORKFLOWS": ["shop.models"]}, "automate.E005", "holds no workflow"),
        ({"AUTOMATE_OUTBOX": {"USING": "replica"}}, "automate.E006", "DATABASES has: default"),
        ({"USE_TZ": False}, "automate.E001", "USE_TZ = True"),
        ({"AUTOMATE_ADMIN": {"SITE": "shop.admin.site"}}, "automate.E003", "shop.admin.site"),
        ({"AUTOMATE_ADMIN": {"PAGE": False}}, "automate.W001", "Did you mean PAGES?"),
        ({"AUTOMATE_OVERRIDES": {"kernl": "x"}}, "automate.W001", "Did you mean kernel?"),
        ({"AUTOMATE_OVERRIDES": {"kernel": "shop.Kernel"}}, "automate.E007", "shop.Kernel"),
        ({"AUTOMATE_OVERRIDES": {"kernel": "shop.models.Order"}}, "automate.E007", "no subclass"),
        (
            {"AUTOMATE_OVERRIDES": {"tenant_resolver": "shop.views.x"}},
            "automate.E007",
            "shop.views",
        ),
        ({"AUTOMATE_OVERRIDES": []}, "automate.E002", "must be a dictionary"),
        ({"AUTOMATE_WORKER": {"SLOTS": "4"}}, "automate.E008", "whole number, 1 or more"),
        ({"AUTOMATE_WORKER": {"GRACE_SECONDS": -1}}, "automate.E008", "number, 0 or more"),
        ({"AUTOMATE_WORKER": {"LOG_FORMAT": "xml"}}, "automate.E008", "'json' or 'text'"),
        ({"AUTOMATE_WORKER": {"PROCESSES": 2}}, "automate.W002", "PostgreSQL"),
        ({"AUTOMATE_OUTBOX": {"STORE": "skip_locked"}}, "automate.W003", "leave it out"),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(
    sqlite: str, settings: dict[str, Any], id: str, words: str
) -> None:
    """One message, which names the setting's mistake and what to do."""
    with override_settings(**settings):
        found = [*check_settings(), *check_database()]
    assert [message.id for message in found] == [id]
    assert words in f"{found[0].msg} {found[0].hint}"


def test_a_wrong_workflow_is_told_with_its_line(sqlite: str, tmp_path: Path) -> None:
    """The loader's own words, at ``manage.py check`` and not at the first event."""
    file = tmp_path / "broken.yaml"
    file.write_text(
        "name: x\ntrigger: {type: event, event: a}\nsteps:\n  - id: a\n    actoin: b.c\n"
    )
    with override_settings(AUTOMATE_WORKFLOWS=[tmp_path]):
        (message,) = check_settings()
    assert message.id == "automate.E005"
    assert "broken.yaml:5" in message.msg


BROKEN = """\
name: {name}
trigger: {{type: event, event: a}}
steps:
  - id: a
    action: chat.post
    input: {{channel: C1, text: "{text}"}}
"""


def test_wrong_templates_are_told_too(sqlite: str, tmp_path: Path) -> None:
    """All that would keep the kernel from starting, of every entry, with file and line."""
    for name, text in (("syntax", "{{ event. }}"), ("filter", "{{ event.payload | nope }}")):
        (tmp_path / f"{name}.yaml").write_text(BROKEN.format(name=name, text=text))
    entries = [tmp_path / "syntax.yaml", tmp_path / "filter.yaml"]
    with override_settings(AUTOMATE_WORKFLOWS=entries):
        with pytest.raises(AutomateError):
            get_kernel()
        with refused_queries():
            found = check_settings()
    assert [message.id for message in found] == ["automate.E005", "automate.E005"]
    assert "syntax.yaml:6" in found[0].msg
    assert "filter.yaml:6" in found[1].msg and "nope" in found[1].msg


def test_checking_asks_nothing_of_the_database(sqlite: str) -> None:
    """It may not be there yet: checks run before ``migrate``."""
    forget_kernel()
    with refused_queries():
        assert check_settings() == []


def test_the_projects_own_code_may_need_tables(sqlite: str) -> None:
    """A hook that fails when the kernel is made is a warning: ``migrate`` must go on."""
    with override_settings(AUTOMATE_HOOKS=[HastyHook()]):
        (message,) = check_settings()
    assert (message.id, message.level) == ("automate.W004", WARNING)
    assert f"OperationalError in {__file__}, line " in message.msg


def test_a_notice_whose_links_lead_nowhere_is_warned_of(sqlite: str, tmp_path: Path) -> None:
    """Before anybody is asked; the setting is named."""
    (tmp_path / "asks.yaml").write_text(ASKS)
    with override_settings(AUTOMATE_WORKFLOWS=[tmp_path / "asks.yaml"]):
        (message,) = check_settings()
        assert (message.id, message.level) == ("automate.W005", WARNING)
        assert "AUTOMATE_APPROVALS['PUBLIC_URL']" in str(message.hint)
    settings = {"PUBLIC_URL": "https://shop.example/api/automate"}
    with override_settings(
        AUTOMATE_WORKFLOWS=[tmp_path / "asks.yaml"], AUTOMATE_APPROVALS=settings
    ):
        assert check_settings() == []


ASKS = """
name: asks
trigger: {type: manual}
steps:
  - id: a
    approval:
      title: May we?
      notify: {action: shop.say, input: {text: "{{ approval.link }}"}}
"""


class HastyHook:
    """Reads tables before there are any."""

    @hookimpl
    def automate_configure(self, kernel: Kernel) -> None:
        """Ask for what is not there."""
        raise OperationalError("no such table")


@contextmanager
def refused_queries() -> Iterator[None]:
    """No query reaches the database."""

    def refuse(execute: Any, sql: str, *rest: Any) -> None:
        raise AssertionError(f"asked: {sql}")

    with connections["default"].execute_wrapper(refuse):
        yield


def test_a_backends_options_are_not_shown(sqlite: str) -> None:
    """They may hold a token."""
    entry = {
        "BACKEND": "automate_kernel.secrets.FileSecretsBackend",
        "OPTIONS": {"token": "s3cr3t-t0k3n"},
    }
    with (
        override_settings(AUTOMATE_SECRETS=[entry]),
        pytest.raises(ConfigError, match="token") as caught,
    ):
        conf.secrets_backends()
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_backend_of_a_plugin_takes_its_options_by_its_key(sqlite: str) -> None:
    """The kernel finds it among the plugins."""
    entry = {"BACKEND": "vault", "OPTIONS": {"address": "https://vault"}}
    with override_settings(AUTOMATE_SECRETS=[entry]):
        assert conf.secrets_backends() == [{"backend": "vault", "address": "https://vault"}]


def test_settings_make_the_kernel(sqlite: str) -> None:
    """Changed settings, as ``override_settings`` changes them, give another kernel."""
    kernel = get_kernel()
    assert kernel is get_kernel()
    assert type(kernel.outbox).__name__ == "OptimisticClaimOutboxStore"
    with override_settings(AUTOMATE_OUTBOX={"STORE": "skip_locked", "LEASE_SECONDS": 7}):
        other = get_kernel()
        assert other is not kernel
        assert type(other.outbox).__name__ == "SkipLockedClaimOutboxStore"
        assert other.outbox.lease_seconds == 7
    with override_settings(AUTOMATE_WORKFLOWS=["shop.workflows.restock"]):
        assert [workflow.name for workflow in get_kernel().workflows] == ["restock"]
    with override_settings(AUTOMATE_WORKFLOWS=["shop.workflows"]):
        assert [workflow.name for workflow in get_kernel().workflows] == ["restock"]


class OwnKernel(Kernel):
    """A project's own."""


class OwnStorage(DjangoStorage):
    """A project's own."""


class OwnStore(OptimisticClaimOutboxStore):
    """A project's own."""


class OwnAuthentication(ApiTokenAuthentication):
    """A project's own."""


def own_tenant(request: Any) -> str:
    """The tenant of every request."""
    return "acme"


def test_the_project_replaces_classes(sqlite: str) -> None:
    """Each by name; the check says nothing, and they are what is used."""
    here = __name__
    overrides = {
        "kernel": f"{here}.OwnKernel",
        "storage": f"{here}.OwnStorage",
        "outbox_store": f"{here}.OwnStore",
        "token_authentication": f"{here}.OwnAuthentication",
        "tenant_resolver": f"{here}.own_tenant",
    }
    with override_settings(AUTOMATE_OVERRIDES=overrides):
        assert [*check_settings(), *check_database()] == []
        kernel = get_kernel()
        found = [type(kernel), type(kernel.storage), type(kernel.outbox)]
        assert BaseAPIView.authentication_classes[0] is OwnAuthentication
        assert tenant_for_request(RequestFactory().get("/")) == "acme"
    assert found == [OwnKernel, OwnStorage, OwnStore]
    assert type(get_kernel()) is Kernel


def test_the_outbox_may_be_an_installed_store(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of an entry point in ``automate.outbox_stores`` is a store's name too."""
    announced = discovery.Found(
        "outbox_store", "own", f"{__name__}:OwnStore", "automate.outbox_stores", "own-store", "1.0"
    )
    monkeypatch.setattr(discovery, "_scans", {tuple(sys.path): (announced,)})
    outbox = {"STORE": "own", "LEASE_SECONDS": 7}
    with override_settings(AUTOMATE_OUTBOX=outbox, AUTOMATE_PLUGINS={"DISCOVER": True}):
        assert [*check_settings(), *check_database()] == []
        assert type(get_kernel().outbox) is OwnStore
        assert get_kernel().outbox.lease_seconds == 7


def test_emit_and_its_twin_take_what_the_kernel_takes() -> None:
    """Both functions have the kernel's own parameters, written out."""
    wanted = list(inspect.signature(Kernel.emit).parameters.values())[1:]
    for function in (emit, aemit):
        assert list(inspect.signature(function).parameters.values()) == wanted
