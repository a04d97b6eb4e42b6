"""
The specification's samples for Django, copied as they stand but for their import lines.

Only names that the samples themselves leave open (`MyModel`, `process`, `CreateThrottle`) are filled
in, above each one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "django_project"))

from shopsite.configured import configure  # noqa: E402

configure()

from automate_django import emit, get_kernel  # noqa: E402
from automate_django.admin import BaseModelAdmin  # noqa: E402
from automate_django.api.v1.base import BaseViewSet, TenantFilterMixin  # noqa: E402
from automate_django.models import OutboxItem  # noqa: E402
from automate_django.outbox import OutboxReaper, SkipLockedClaimOutboxStore  # noqa: E402
from automate_django.signals import (  # noqa: E402
    step_failed,
    workflow_completed,
)
from automate_kernel import BaseProvider  # noqa: E402
from backoffice.models import Project, Tenant  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.dispatch import receiver  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path, reverse  # noqa: E402
from rest_framework.permissions import IsAdminUser  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.test import APIRequestFactory, force_authenticate  # noqa: E402
from rest_framework.throttling import BaseThrottle  # noqa: E402
from service.models import Organization  # noqa: E402
from service.models import Project as OrganizationProject  # noqa: E402
from shopsite.making import make_tables  # noqa: E402
from specification_samples import has_sample  # noqa: E402

ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    """The project's database, with nothing in it."""
    make_tables()
    call_command("flush", verbosity=0, interactive=False)
    yield
    call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def users() -> dict[str, Any]:
    """A superuser, and one who is staff."""
    create = get_user_model().objects.create_user
    return {
        "root": create("root", is_staff=True, is_superuser=True),
        "ann": create("ann", is_staff=True),
        "bob": create("bob"),
    }


# -- settings ------------------------------------------------------------------------------------


class MyCustomProvider(BaseProvider):
    """Left open by the sample."""

    key = "my_custom_provider"


def test_the_settings_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is there under its own key, and ``manage.py check`` has nothing to say."""
    for name in ("myapp", "myapp.providers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["myapp.providers"].MyCustomProvider = MyCustomProvider

    # fmt: off
    # settings.py
    AUTOMATE_PROVIDERS = [
        'myapp.providers.MyCustomProvider',
    ]
    # fmt: on

    with override_settings(AUTOMATE_PROVIDERS=AUTOMATE_PROVIDERS):
        assert isinstance(get_kernel().provider("my_custom_provider"), MyCustomProvider)
        assert run_checks(tags=["automate"]) == []


# -- admin ---------------------------------------------------------------------------------------


class MyModel(Project):
    """Left open by the sample."""

    class Meta:
        proxy = True
        app_label = "backoffice"

    @property
    def custom_field(self) -> str:
        """Something to show."""
        return f"custom {self.name}"


# fmt: off
@admin.register(MyModel)
class MyModelAdmin(BaseModelAdmin):
    # Override list display
    def get_list_display(self, request):
        display = super().get_list_display(request)
        return ['custom_field'] + display

    # Override queryset
    def get_queryset(self, request):
        qs = super().get_queryset(request)
        if not request.user.is_superuser:
            qs = qs.filter(owner=request.user)
        return qs

    # Override readonly fields
    def get_readonly_fields(self, request, obj=None):
        readonly = super().get_readonly_fields(request, obj)
        if obj and obj.is_locked:
            readonly = readonly + ['name', 'config']
        return readonly
# fmt: on


urlpatterns = [path("admin/", admin.site.urls)]


@pytest.fixture
def projects(users: dict[str, Any]) -> dict[str, Any]:
    """One of each user's, one of them locked."""
    tenant = Tenant.objects.create(name="Acme")
    create = MyModel.objects.create
    return {
        "hers": create(tenant=tenant, name="hers", owner=users["ann"], is_locked=True),
        "his": create(tenant=tenant, name="his", owner=users["root"]),
    }


@pytest.fixture
def page() -> Iterator[Any]:
    """A function that gets a page of the admin as a user."""
    with override_settings(ROOT_URLCONF=__name__):

        def get(user: Any, name: str, *args: Any) -> Any:
            client = Client()
            client.force_login(user)
            return client.get(reverse(f"admin:backoffice_mymodel_{name}", args=args))

        yield get


def test_the_admin_sample(users: dict[str, Any], projects: dict[str, Any], page: Any) -> None:
    """Columns, rows and read-only fields are as the overrides say."""
    shown = page(users["root"], "changelist")
    assert shown.status_code == 200
    assert "custom hers" in shown.content.decode()
    assert "custom his" in shown.content.decode()
    locked = page(users["root"], "change", projects["hers"].pk).content.decode()
    assert 'name="name"' not in locked
    assert 'name="config"' not in locked
    free = page(users["root"], "change", projects["his"].pk).content.decode()
    assert 'name="name"' in free
    assert 'name="config"' in free


def test_the_admin_sample_for_one_who_is_no_superuser(
    users: dict[str, Any], projects: dict[str, Any], page: Any
) -> None:
    """Others' rows are not there: neither in the list nor by their key."""
    from django.contrib.auth.models import Permission

    # Of the proxy itself, whose own permissions no migration has made.
    permission = Permission.objects.get(
        codename="change_project", content_type__app_label="backoffice"
    )
    proxy, _ = Permission.objects.get_or_create(
        codename="change_mymodel", content_type=permission.content_type, name="Can change"
    )
    users["ann"].user_permissions.add(permission, proxy)
    shown = page(users["ann"], "changelist").content.decode()
    assert "custom hers" in shown
    assert "custom his" not in shown
    assert page(users["ann"], "change", projects["hers"].pk).status_code == 200
    assert page(users["ann"], "change", projects["his"].pk).status_code == 302


# -- API -----------------------------------------------------------------------------------------


class CreateThrottle(BaseThrottle):
    """Left open by the sample: one is enough."""

    created = 0

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count."""
        CreateThrottle.created += 1
        return CreateThrottle.created <= 1

    def wait(self) -> float:
        """Return the seconds until one more is taken."""
        return 7.2


# fmt: off
class MyViewSet(TenantFilterMixin, BaseViewSet):
    tenant_field = 'organization_id'

    def get_permissions(self):
        """Dynamic permissions based on action."""
        if self.action == 'destroy':
            return [IsAdminUser()]
        return super().get_permissions()

    def get_throttles(self):
        """Custom throttling."""
        if self.action == 'create':
            return [CreateThrottle()]
        return super().get_throttles()
# fmt: on


class ProjectViewSet(MyViewSet):
    """What the sample leaves open: the rows, and what is done with them."""

    queryset = OrganizationProject.objects.order_by("pk")

    def list(self, request: Any) -> Response:
        """The names."""
        return Response([each.name for each in self.filter_queryset(self.get_queryset())])

    def create(self, request: Any) -> Response:
        """Another one, of the tenant's own."""
        OrganizationProject.objects.create(
            name=request.data["name"], organization_id=self.get_tenant_id()
        )
        return Response(status=201)

    def destroy(self, request: Any, pk: Any) -> Response:
        """No longer."""
        self.get_object().delete()
        return Response(status=204)


def call(method: str, action: str, user: Any, organization: Any, **kwargs: Any) -> Any:
    """The answer to a request of *user*, who works for *organization*."""
    if user is not None:
        user.organization_id = organization and organization.pk
    request = getattr(APIRequestFactory(), method)("/", {"name": "new"}, format="json")
    if user is not None:
        force_authenticate(request, user)
    return ProjectViewSet.as_view({method: action})(request, **kwargs)


def test_the_api_sample(users: dict[str, Any]) -> None:
    """Rows of one tenant, permissions and throttles by action; closed without a tenant."""
    CreateThrottle.created = 0
    acme, globex = (Organization.objects.create(name=name) for name in ("acme", "globex"))
    create = OrganizationProject.objects.create
    ours = create(name="ours", organization=acme)
    theirs = create(name="theirs", organization=globex)
    bob, ann = users["bob"], users["ann"]

    assert call("get", "list", bob, acme).data == ["ours"]
    assert call("get", "list", bob, None).status_code == 403
    assert call("get", "list", None, acme).status_code in (401, 403)

    assert call("post", "create", bob, acme).status_code == 201
    throttled = call("post", "create", bob, acme)
    assert (throttled.status_code, throttled["Retry-After"]) == (429, "8")
    assert call("get", "list", bob, acme).data == ["ours", "new"]

    assert call("delete", "destroy", bob, acme, pk=ours.pk).status_code == 403
    assert call("delete", "destroy", ann, acme, pk=theirs.pk).status_code == 404
    assert call("delete", "destroy", ann, acme, pk=ours.pk).status_code == 204
    assert OrganizationProject.objects.filter(pk=theirs.pk).exists()


# -- outbox --------------------------------------------------------------------------------------


class TransientError(Exception):
    """Left open by the sample."""


class PermanentError(Exception):
    """Left open by the sample."""


def process(item: Any) -> None:
    """Left open by the sample."""
    if item.payload == "transient":
        raise TransientError
    if item.payload == "permanent":
        raise PermanentError


def test_the_outbox_sample() -> None:
    """Each item in the state that its line of the sample says, and one recovered."""
    next_attempt = datetime.now(timezone.utc) + timedelta(minutes=5)
    outbox = get_kernel().outbox
    ids = {
        payload: outbox.enqueue("job", payload) for payload in ("good", "transient", "permanent")
    }

    # fmt: off
    # Claim items for processing
    store = SkipLockedClaimOutboxStore(lease_seconds=300)
    items = store.claim_batch("worker-1", limit=10)

    for item in items:
        try:
            process(item)
            store.mark_success(item.id, "worker-1")
        except TransientError:
            store.mark_retry(item.id, "worker-1", next_attempt, "TRANSIENT")
        except PermanentError:
            store.mark_failed(item.id, "worker-1", "PERMANENT")

    # Recover stuck items (run periodically)
    reaper = OutboxReaper(stale_threshold_seconds=600)
    reaped_count = reaper.reap_stale_items()
    # fmt: on

    found = {name: OutboxItem.objects.get(pk=pk) for name, pk in ids.items()}
    assert {name: (each.status, each.last_error_code) for name, each in found.items()} == {
        "good": ("COMPLETED", None),
        "transient": ("RETRY", "TRANSIENT"),
        "permanent": ("FAILED", "PERMANENT"),
    }
    assert abs(found["transient"].next_attempt_at - next_attempt) < timedelta(milliseconds=1)
    assert reaped_count == 0


# -- signals -------------------------------------------------------------------------------------


told: list[Any] = []


def send_notification(owner: Any, text: str) -> None:
    """Left open by the sample."""
    told.append((owner, text))


def log_to_sentry(error: Any, extra: dict[str, Any]) -> None:
    """Left open by the sample."""
    told.append((type(error).__name__, extra))


def test_the_signals_sample() -> None:
    """Its receivers hear of an execution that completes, and of a step that fails."""
    told.clear()

    # fmt: off
    # Connect handler
    @receiver(workflow_completed)
    def on_workflow_complete(sender, execution, **kwargs):
        send_notification(execution.owner, f"Workflow {execution.name} completed")

    @receiver(step_failed)
    def on_step_failure(sender, step, error, **kwargs):
        log_to_sentry(error, extra={'step_id': step.id})
    # fmt: on

    emit("order.created", ORDER, tenant_id="acme")
    get_kernel().run_until_idle()
    assert told == [("acme", "Workflow order-notify completed")]
    emit("order.created", {"lines": [{"price": None, "quantity": 1}], "channel_id": "C1"})
    get_kernel().run_until_idle()
    assert told[1:] == [("AutomateError", {"step_id": "calculate"})]


# -- word for word -------------------------------------------------------------------------------


def test_samples_are_unchanged() -> None:
    """What stands above reads as the specification prints it, but for its indents and blank lines."""
    assert has_sample(MyModelAdmin, "admin")
    assert has_sample(MyViewSet, "api")
    assert has_sample(test_the_outbox_sample, "outbox")
    assert has_sample(test_the_signals_sample, "signals")
