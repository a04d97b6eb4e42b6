"""The API for clients, as a Django project has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.models import ApiToken, AuditEntry, IdempotencyRecord
from automate_kernel import Kernel
from rest_framework.test import APIClient
from suites.api import ApiContract


def client_of(text: str | None = None) -> APIClient:
    """A client that sends the token *text*."""
    client = APIClient(raise_request_exception=False)
    if text is not None:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


class TestDjango(ApiContract):
    api = "/api/automate"

    @pytest.fixture
    def kernel(self, empty: None) -> Kernel:
        ApiToken.objects.all().delete()
        AuditEntry.objects.all().delete()
        IdempotencyRecord.objects.all().delete()
        return get_kernel()

    @pytest.fixture
    def token(self, kernel: Kernel) -> Callable[..., Any]:
        def make(*scopes: str, text: str = "", **options: Any) -> APIClient:
            if not text:
                _, text = ApiToken.objects.issue("test", scopes=scopes, **options)
            return client_of(text)

        return make

    @pytest.fixture
    def stranger(self, kernel: Kernel) -> APIClient:
        return client_of()
