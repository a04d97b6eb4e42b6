"""Two tenants, their rows, and who works for them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import pytest
from backoffice.models import Category, Employment, Label, Project, Task, Tenant
from django.contrib.auth.models import Permission, User
from django.test import Client
from shopsite.emptying import ROWS, delete_rows
from shopsite.routing import TestedDatabase

PREFIX = "/backoffice/backoffice"
_numbers = itertools.count(1)


@dataclass
class Side:
    """One tenant and what it has."""

    tenant: Tenant
    category: Category
    label: Label
    project: Project
    task: Task


@dataclass
class World:
    """Ours, theirs, and browsers."""

    ours: Side
    theirs: Side
    clients: list[Any] = field(default_factory=list)

    def user(self, *permissions: str, tenant: Tenant | None = None, **values: Any) -> User:
        """A staff user with *permissions* such as ``change_project``."""
        user = User.objects.create(username=f"user{next(_numbers)}", is_staff=True, **values)
        found = Permission.objects.filter(codename__in=permissions)
        assert {each.codename for each in found} == set(permissions)
        user.user_permissions.add(*found)
        if tenant is not None:
            Employment.objects.create(user=user, tenant=tenant)
        return user

    def client(self, user: User) -> Client:
        """A browser in which *user* is logged in."""
        client = Client()
        client.force_login(user)
        return client

    def staff(self, *models: str, tenant: Tenant | None = None) -> Client:
        """A browser of a user of our tenant who may do everything with *models*."""
        names = [f"{do}_{each}" for each in models for do in ("view", "add", "change", "delete")]
        return self.client(self.user(*names, tenant=tenant or self.ours.tenant))

    def root(self) -> Client:
        """A browser of a superuser."""
        return self.client(self.user(is_superuser=True))


def side(name: str) -> Side:
    tenant = Tenant.objects.create(name=f"{name} tenant")
    category = Category.objects.create(tenant=tenant, name=f"{name} category")
    label = Label.objects.create(tenant=tenant, name=f"{name} label")
    project = Project.objects.create(
        tenant=tenant, name=f"{name} project", category=category, api_key=f"key-of-{name}", margin=7
    )
    project.labels.add(label)
    task = Task.objects.create(project=project, title=f"{name} task", category=category)
    return Side(tenant, category, label, project, task)


@pytest.fixture
def world(sqlite: str) -> Iterator[World]:
    """Two tenants with rows, on SQLite."""
    yield _world()


@pytest.fixture
def world_anywhere(alias: str) -> Iterator[World]:
    """Two tenants with rows, on each database."""
    yield _world()


@pytest.fixture
def world_mariadb(mariadb: str) -> Iterator[World]:
    """Two tenants with rows, on MariaDB."""
    yield _world()


def _world() -> World:
    delete_rows(TestedDatabase.alias, ROWS)
    return World(side("our"), side("their"))


def url(model: str, *parts: Any) -> str:
    """The address of a page of the back office."""
    return "/".join([PREFIX, model, *map(str, parts), ""])


def page(response: Any, status: int = 200) -> str:
    """The text of a page that must have *status*."""
    content = b"".join(response) if response.streaming else response.content
    text: str = unescape(content.decode())
    assert response.status_code == status, (response.status_code, text[:3000])
    return text


def errors(text: str) -> list[str]:
    """The error messages in a page."""
    found = re.findall(r'class="errorlist[^"]*"[^>]*>(.*?)</ul>', text, re.DOTALL)
    return [re.sub(r"<[^>]+>|\s+", " ", each).strip() for each in found]


def form_of(text: str) -> dict[str, Any]:
    """What a browser would send for the form of a page: the values of its boxes."""
    data: dict[str, Any] = {}
    for tag in re.findall(r"<input\b[^>]*>", text):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        name, kind = attributes.get("name"), attributes.get("type", "text")
        if not name or kind in ("submit", "file") or name == "csrfmiddlewaretoken":
            continue
        if kind in ("checkbox", "radio") and " checked" not in tag:
            continue
        data[name] = attributes.get("value", "on" if kind == "checkbox" else "")
    for name, content in re.findall(
        r'<textarea\b[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', text, re.DOTALL
    ):
        data[name] = content.strip()
    for tag, name, options in re.findall(
        r'(<select\b[^>]*name="([^"]+)"[^>]*>)(.*?)</select>', text, re.DOTALL
    ):
        chosen = re.findall(r'<option value="([^"]*)"[^>]*\bselected', options)
        data[name] = chosen if " multiple" in tag else (chosen or [""])[0]
    return {name: value for name, value in data.items() if value != []}


def names_tenant(request: Any) -> Any:
    """The tenant of a request, for the setting that says so for the whole project."""
    employment = getattr(request.user, "employment", None)
    return employment and employment.tenant_id
