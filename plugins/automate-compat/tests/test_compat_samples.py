"""The specification's samples run word for word, import lines included."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SAMPLES = dict(
    re.findall(
        r"^```(\w+)\n(.*?)^```$",
        (Path(__file__).parent / "samples.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
# A project of its own in a process of its own: Django is set up once in a process.
PROJECT = """
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="a-key-for-tests-alone",
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.admin", "rest_framework", "automate_django",
    ],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": "sample.sqlite3",
    }},
    USE_TZ=True,
)
django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
"""
# By sample: the names that it leaves open, and what must hold after it.
AROUND = {
    "provider": (
        """
        from typing import Any
        from automate_kernel import AutomateError, ErrorCodes, Kernel, ProviderContext
        from pydantic import BaseModel
        class MyProviderConfig(BaseModel):
            model: str = "small"
        """,
        """
        kernel = Kernel(plugins=[MyProvider], discover=False)
        provider = kernel.provider("my_provider")
        assert provider.config == {"model": "small"}
        assert provider.normalize_error(ValueError("x")).code == "INTERNAL"
        """,
    ),
    "secrets": (
        """
        from automate_governance.secrets.interfaces import SecretNotFoundError
        """,
        """
        from automate_kernel.secrets import SecretResolver
        class Client:
            def read(self, path):
                known = "secret/data/KNOWN"
                return {"data": {"value": "s3cr3t-value"}} if path == known else None
        backend = VaultBackend()
        backend.vault_client = Client()
        resolver = SecretResolver([backend])
        assert resolver.get("KNOWN") == "s3cr3t-value"
        assert resolver.check(["OTHER"]).problems
        """,
    ),
    "connector": (
        """
        from typing import Any
        from automate_connectors.base import AutomateError, ErrorCodes
        """,
        """
        from automate_kernel import Kernel
        from automate_kernel.base.errors import WebhookRejectedError
        SlackConnector._post_message = lambda self, data: {"ts": data["channel"]}
        kernel = Kernel(plugins=[SlackConnector], discover=False)
        assert kernel.invoke("slack.post_message", {"channel": "C1", "text": "x"}) == {"ts": "C1"}
        try:
            kernel.receive_webhook("slack", "message_created", {}, b"{}")
        except WebhookRejectedError:
            pass
        else:
            raise AssertionError("a stub that returns None lets nobody in")
        """,
    ),
    "admin": (
        PROJECT
        + """
        from django.contrib import admin
        from django.contrib.auth.models import Group as MyModel
        admin.site.unregister(MyModel)
        """,
        """
        from django.contrib.auth.models import AnonymousUser, User
        from django.test import RequestFactory
        request = RequestFactory().get("/")
        request.user = User(is_superuser=True)
        made = admin.site._registry[MyModel]
        assert isinstance(made, BaseModelAdmin)
        assert made.get_list_display(request)[0] == "custom_field"
        assert made.get_queryset(request).count() == 0
        """,
    ),
    "api": (
        PROJECT
        + """
        from rest_framework.permissions import IsAdminUser
        from rest_framework.throttling import BaseThrottle
        class CreateThrottle(BaseThrottle):
            def allow_request(self, request, view):
                return True
        """,
        """
        view = MyViewSet()
        view.action = "destroy"
        assert [type(each) for each in view.get_permissions()] == [IsAdminUser]
        view.action = "create"
        assert [type(each) for each in view.get_throttles()] == [CreateThrottle]
        view.action = "list"
        assert view.get_permissions()
        """,
    ),
    "outbox": (
        PROJECT
        + """
        from datetime import timedelta
        from django.utils import timezone
        from automate_django import get_kernel
        class TransientError(Exception): ...
        class PermanentError(Exception): ...
        next_attempt = timezone.now() + timedelta(minutes=5)
        def process(item):
            error = {"later": TransientError, "never": PermanentError}.get(item.payload)
            if error is not None:
                raise error
        for payload in ("now", "later", "never"):
            get_kernel().outbox.enqueue("work", payload)
        """,
        """
        from automate_core.outbox import OutboxItem
        found = dict(OutboxItem.objects.values_list("payload", "status"))
        assert found == {"now": "COMPLETED", "later": "RETRY", "never": "FAILED"}, found
        assert reaped_count == 0
        """,
    ),
    "signals": (
        PROJECT
        + """
        from django.dispatch import receiver
        sent = []
        def send_notification(owner, text):
            sent.append(text)
        def log_to_sentry(error, extra):
            sent.append(extra)
        """,
        """
        from automate_django import get_kernel
        kernel = get_kernel()
        @kernel.action("give")
        def give(fail: bool) -> str:
            if fail:
                raise ValueError("no")
            return "x"
        for name, fail in (("good", False), ("bad", True)):
            kernel.add_workflow({
                "name": name, "trigger": {"type": "manual"},
                "steps": [{"id": "a", "action": "give", "input": {"fail": fail}}],
            })
        kernel.run("bad")
        assert sent == [{"step_id": "a"}], sent
        import automate_django.signals
        assert workflow_completed is automate_django.signals.workflow_completed
        """,
    ),
    "filter": (
        "",
        """
        from automate_kernel import Kernel
        from automate_kernel.templates import TemplateContext
        text = "{{ 1234.5 | format_currency('EUR') }}"
        made = Kernel(discover=False).templates.compile(text).render(TemplateContext())
        assert made == "EUR 1,234.50", made
        """,
    ),
}


@pytest.mark.parametrize("name", sorted(AROUND))
def test_a_sample_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """Only the names that the sample leaves open are filled in, around it."""
    before, after = AROUND[name]
    project = PROJECT if before.startswith(PROJECT) else ""
    parts = (project, before.removeprefix(project), SAMPLES[name], after)
    script = tmp_path / "sample.py"
    script.write_text("\n".join(textwrap.dedent(part) for part in parts))
    ran = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:automate_core", str(script)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_each_sample_is_run() -> None:
    """No sample of the copy is left out."""
    assert set(SAMPLES) == set(AROUND)
