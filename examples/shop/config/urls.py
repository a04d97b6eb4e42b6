"""The addresses of the example."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from shop.api.views import router
from shop.views import PaymentWebhookView, start_page

urlpatterns = [
    path("", start_page),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view()),
    # The automation's own API: workflows, executions, events, the outbox.
    path("api/automate/", include("automate_django.api.urls")),
    path("api/", include(router.urls)),
    path("webhooks/<str:connector>/<str:trigger>", PaymentWebhookView.as_view(), name="webhook"),
]
