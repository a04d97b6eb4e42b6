"""
The REST API for a project's URLs.

::

    path("api/automate/", include("automate_django.api.urls"))
"""

from __future__ import annotations

import re

from django.urls import URLPattern, URLResolver, include, path

from automate_django.api.v1.views import DocumentView, views

app_name = "automate"


def _pattern(route: str) -> str:
    """Return a path of the API's table as Django writes it."""
    return re.sub(r"\{(\w+)(?::(\w+))?\}", lambda part: f"<{part[2] or 'str'}:{part[1]}>", route)


urlpatterns: list[URLPattern | URLResolver] = [
    *(path(_pattern(route), view, name=name) for name, (route, view) in views().items()),
    path("schema", DocumentView.as_view(), name="schema"),
    path("", include("automate_django.approvals")),
    path("", include("automate_django.webhooks")),
]
