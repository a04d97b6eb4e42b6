"""Two organizations that know nothing of each other, and clients that work for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from automate_django.models import ApiToken
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import override_settings
from rest_framework.test import APIClient
from service.models import Membership, Organization, Project, Tag
from shopsite.emptying import ROWS, delete_rows
from shopsite.routing import TestedDatabase

TENANT = {"TENANT": "service.models.organization_of"}


@dataclass
class World:
    """Acme's rows, and those of a rival that it must never see."""

    acme: Organization
    rival: Organization
    alice: User
    roman: User
    nobody: User
    ours: Project
    theirs: Project
    our_tag: Tag
    their_tag: Tag

    def client(self, user: User | None = None) -> APIClient:
        """A client that is logged in as *user*, Alice by default, in a session."""
        client = APIClient(raise_request_exception=False)
        client.force_login(user or self.alice)
        return client


@pytest.fixture
def empty(sqlite: str) -> Iterator[None]:
    """No users, no rows of the service, no counts."""
    _clear()
    yield
    _clear()


def _clear() -> None:
    delete_rows(TestedDatabase.alias, ROWS)
    cache.clear()


@pytest.fixture
def noon(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """
    A moment at the beginning of a minute, shortly after which time stands still.

    For whoever counts on a limit: one of a minute lets requests through again at its turn.
    """
    cache.clear()
    noon = 1_764_072_000.0
    monkeypatch.setattr("automate_django.api.bases.rate_limit.time.time", lambda: noon + 12.5)
    return noon


@pytest.fixture
def world(empty: None) -> Iterator[World]:
    """Both organizations, and where a user's is looked up."""
    with override_settings(AUTOMATE_API=TENANT):
        yield make_world()


@pytest.fixture
def world_anywhere(alias: str) -> Iterator[World]:
    """Both organizations, on each database."""
    _clear()
    with override_settings(AUTOMATE_API=TENANT):
        yield make_world()
    _clear()


@pytest.fixture
def world_on_postgresql(postgresql: str) -> Iterator[World]:
    """Both organizations, on PostgreSQL."""
    _clear()
    with override_settings(AUTOMATE_API=TENANT):
        yield make_world()
    _clear()


def make_world() -> World:
    """Fill the service's tables."""
    acme, rival = (Organization.objects.create(name=name) for name in ("Acme", "Rival"))
    users = {name: User.objects.create(username=name) for name in ("alice", "roman", "nobody")}
    Membership.objects.create(user=users["alice"], organization=acme)
    Membership.objects.create(user=users["roman"], organization=rival)
    return World(
        acme, rival, users["alice"], users["roman"], users["nobody"],
        Project.objects.create(organization=acme, name="ours"),
        Project.objects.create(organization=rival, name="theirs-9a3f", owner=users["roman"]),
        Tag.objects.create(organization=acme, name="our-tag"),
        Tag.objects.create(organization=rival, name="their-tag-9a3f"),
    )  # fmt: skip


def bearer(text: str, **options: Any) -> APIClient:
    """A client that sends the token *text*."""
    client = APIClient(raise_request_exception=False, **options)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


@pytest.fixture
def token(sqlite: str) -> Any:
    """Make a token, and a client that sends it."""

    def make(*scopes: str, **options: Any) -> APIClient:
        found, text = ApiToken.objects.issue("test", scopes=scopes or ["*"], **options)
        client = bearer(text)
        client.token, client.text = found, text
        return client

    return make
