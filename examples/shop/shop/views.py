"""The start page, and where the payment provider sends its webhooks."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from automate_django.webhooks import WebhookView
from shop.models import Store


def start_page(request: HttpRequest) -> HttpResponse:
    """What there is to look at."""
    return render(request, "shop/start.html", {"stores": Store.objects.order_by("slug")})


class PaymentWebhookView(WebhookView):
    """Webhooks, each for the store that its body names."""

    def get_tenant_id(self, request: HttpRequest, connector: str, trigger: str) -> str | None:
        """
        The store.

        The signature is checked after this. It is one of the whole body, so a store that the
        provider didn't write is refused along with it.
        """
        try:
            return str(json.loads(request.body)["merchant"])
        except (ValueError, KeyError, TypeError):
            return None
