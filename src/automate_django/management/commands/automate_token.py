"""``manage.py automate_token``: make, list and revoke API tokens."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.utils import timezone

from automate_django.management.base import KernelCommand, as_json
from automate_django.models import ApiToken
from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox.item import check_text


class Command(KernelCommand):
    """Makes, lists and revokes the tokens of the API."""

    help = "Make, list and revoke API tokens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the three commands."""
        commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

        def command(name: str, text: str) -> ArgumentParser:
            return commands.add_parser(name, help=text, description=text)

        create = command("create", "Make a token and print it, once.")
        create.add_argument("name", help="its purpose")
        user = "the user that it belongs to; without it, it is a service's"
        create.add_argument("--user", help=user)
        whose = create.add_mutually_exclusive_group()
        whose.add_argument("--tenant", help="the tenant whose rows it can see")
        operators = "it can see the rows of all: an operator's"
        whose.add_argument("--all-tenants", action="store_true", help=operators)
        scope = "a permission: events:write, outbox:*, *; may be repeated"
        create.add_argument("--scope", action="append", required=True, metavar="SCOPE", help=scope)
        create.add_argument("--expires", metavar="TIME", help="the time until it expires: 90d, 12h")
        listing = command("list", "List tokens.")
        listing.add_argument("--json", action="store_true", help="print JSON")
        prefix = "the prefix that list shows: atk_1a2b3c4d5e6f"
        command("revoke", "End tokens at once.").add_argument("prefix", nargs="+", help=prefix)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the chosen command."""
        getattr(self, f"_{options['command']}")(**options)

    def _create(self, name: str, **options: Any) -> None:
        check_text(name, "the name", column="kind")
        if options["tenant"] is not None:
            check_text(options["tenant"], "--tenant", column="tenant_id")
        token, text = ApiToken.objects.issue(
            name,
            user=_user(options["user"]),
            tenant_id=options["tenant"],
            all_tenants=options["all_tenants"],
            scopes=options["scope"],
            expires_at=_expiry(options["expires"]),
        )
        self.stderr.write(f"{token}: keep it now, it can't be shown again")
        # Alone on standard output, so that it can be piped into a secrets store.
        self.stdout.write(text)

    def _list(self, **options: Any) -> None:
        tokens = list(map(_as_data, ApiToken.objects.order_by("pk")))
        if options["json"]:
            self.stdout.write(as_json(tokens))
            return
        if not tokens:
            self.stdout.write("no tokens")
        for token in tokens:
            self.stdout.write("  ".join(_words(token)))

    def _revoke(self, prefix: list[str], **options: Any) -> None:
        for each in prefix:
            bare = each.removeprefix("atk_").partition("_")[0]
            token = ApiToken.objects.filter(prefix=bare).first()
            if token is None:
                raise CommandError(f"there is no token {each!r}; automate_token list shows them")
            ended = token.revoke()
            self.stdout.write(f"{token}: {'revoked' if ended else 'was revoked already'}")


def _user(name: str | None) -> Any:
    if name is None:
        return None
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist:
        raise CommandError(f"there is no user {name!r}") from None


def _expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return timezone.now() + timedelta(seconds=parse_duration(text))
    except (AutomateError, ValueError, OverflowError):
        raise CommandError(f"--expires {text!r} is no duration; write 90d or 12h") from None


def _as_data(token: ApiToken) -> dict[str, Any]:
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        "prefix": token.shown,
        "name": token.name,
        "user": token.user_id,
        "tenant": "*" if token.all_tenants else token.tenant_id,
        "scopes": token.scopes,
        "usable": token.usable,
        **{name: (at := getattr(token, name)) and at.isoformat() for name in times},
    }


def _words(token: dict[str, Any]) -> Iterator[str]:
    yield token["prefix"]
    yield token["name"]
    yield f"tenant {token['tenant'] or '-'}"
    yield f"user {token['user'] or '-'}"
    yield ",".join(token["scopes"])
    yield f"used {token['last_used_at'] or 'never'}"
    if not token["usable"]:
        yield "revoked" if token["revoked_at"] else "expired"
