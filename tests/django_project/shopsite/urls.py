"""The admin and the API."""

from __future__ import annotations

from backoffice.admin import site as backoffice
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("backoffice/", backoffice.urls),
    path("api/automate/", include("automate_django.api.urls")),
    path("service/", include("service.urls")),
]
