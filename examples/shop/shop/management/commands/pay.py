"""``manage.py pay north 4``: play the payment provider that tells of money for an order."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from automate_django import get_kernel
from shop.payments import DELIVERY_HEADER, SIGNATURE


class Command(BaseCommand):
    """Sends the webhook, signed as the provider signs it."""

    help = "Send the signed webhook that says that an order's money has come."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the order, and where the shop is."""
        parser.add_argument("store", help="north or south")
        parser.add_argument("order", type=int, help="the id of the order")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--unsigned", action="store_true", help="see what happens without")

    def handle(self, *args: Any, **options: Any) -> None:
        """Send it."""
        payment = {"merchant": options["store"], "order": options["order"]}
        body = json.dumps(payment).encode()
        # The provider sends the same delivery id when it sends a delivery again.
        headers = {DELIVERY_HEADER: f"payment-of-{options['order']}"}
        if not options["unsigned"]:
            secret = str(get_kernel().secrets.get("PAYMENTS_WEBHOOK_SECRET"))
            headers |= SIGNATURE.sign(body, secret)
        url = f"http://127.0.0.1:{options['port']}/webhooks/payments/received"
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                self.stdout.write(f"{response.status} {response.read().decode()}")
        except urllib.error.HTTPError as error:
            raise CommandError(f"{error.code} {error.read().decode()}") from error
        except urllib.error.URLError as error:
            raise CommandError(f"{url} does not answer: {error.reason}") from error
