"""Filters of django-filter on a tenant's view: they offer, name and find rows of the tenant alone."""

from __future__ import annotations

from typing import Any

import pytest
from automate_django.api.v1.base import BaseModelViewSet, TenantFilterMixin
from rest_framework.test import APIRequestFactory, force_authenticate
from service.models import Note, Project, Tag, Task
from service.serializers import ProjectSerializer, TaskSerializer

filters = pytest.importorskip("django_filters")

from django_filters.rest_framework import DjangoFilterBackend, FilterSet  # noqa: E402


class TaskViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    tenant_field = "project__organization_id"
    filter_backends = [DjangoFilterBackend]
    filterset_fields = ["project"]


class ProjectFilters(FilterSet):
    in_tags = filters.ModelMultipleChoiceFilter(field_name="tags", queryset=Tag.objects.all())
    tagged = filters.AllValuesFilter(field_name="tags__name")
    called = filters.AllValuesMultipleFilter(field_name="name")

    class Meta:
        model = Project
        fields = ["owner", "parent"]


class ProjectViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    tenant_field = "organization_id"
    tenant_related = {"country": None, "owner": "membership__organization_id"}
    filter_backends = [DjangoFilterBackend]
    filterset_class = ProjectFilters


class Undeclared(ProjectViewSet):
    tenant_related = {}


def ask(view: Any, user: Any, query: str = "", accept: str = "application/json") -> Any:
    """The rendered answer of the list."""
    request = APIRequestFactory().get(f"/?{query}", HTTP_ACCEPT=accept)
    force_authenticate(request, user)
    return view.as_view({"get": "list"})(request).render()


def test_the_browsable_form_offers_own_rows_alone(world: Any) -> None:
    """Related rows, and values that a filter collects from all rows of a table."""
    world.ours.tags.add(world.our_tag)
    world.theirs.tags.add(world.their_tag)
    for view in (TaskViewSet, ProjectViewSet):
        page = ask(view, world.alice, accept="text/html").content.decode()
        assert "ours" in page
        assert "9a3f" not in page
        assert "roman" not in page
    assert "our-tag" in page
    assert "alice" in page


def test_an_answer_does_not_tell_that_a_row_exists(world: Any) -> None:
    """A key of another tenant's row is as good as one that there is not."""
    Task.objects.create(project=world.ours, title="a")
    found = ask(TaskViewSet, world.alice, f"project={world.ours.pk}")
    assert [row["title"] for row in found.data["results"]] == ["a"]
    for view, name, foreign in (
        (TaskViewSet, "project", world.theirs.pk),
        (ProjectViewSet, "owner", world.roman.pk),
        (ProjectViewSet, "parent", world.theirs.pk),
        (ProjectViewSet, "in_tags", world.their_tag.pk),
        (ProjectViewSet, "tagged", "their-tag-9a3f"),
        (ProjectViewSet, "called", "theirs-9a3f"),
    ):
        answers = [ask(view, world.alice, f"{name}={key}") for key in (foreign, "99999")]
        assert [each.status_code for each in answers] == [400, 400], name
        texts = [each.content.decode().replace(str(foreign), "99999") for each in answers]
        assert texts[0] == texts[1]


def test_rows_that_are_nobodys_must_be_declared(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As for a serializer's fields: not offered, and the developer is told what to write."""
    assert ask(Undeclared, world.alice, f"owner={world.alice.pk}").status_code == 500
    assert "tenant_related = {'owner': 'path__to__tenant_id' or None}" in caplog.text


def test_a_view_without_tenants_is_left_alone(world: Any) -> None:
    """The base class by itself filters as django-filter does."""

    class All(BaseModelViewSet):
        queryset = Task.objects.all()
        serializer_class = TaskSerializer
        filter_backends = [DjangoFilterBackend]
        filterset_fields = ["project"]

    Task.objects.create(project=world.theirs, title="b")
    assert ask(All, world.alice, f"project={world.theirs.pk}").status_code == 200
    assert not Note.objects.exists()
