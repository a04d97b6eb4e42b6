"""The page of kinds: their counts, and pausing, resuming and limiting them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBadRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern

from automate_django.admin.pages.access import database, record, require_operator
from automate_django.admin.pages.base import PageSection
from automate_django.kernel import get_kernel
from automate_django.models import OutboxPause
from automate_django.outbox_counts import forget_counts, read_counts
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.fair_share import ready_kinds

_LATELY_SECONDS = 3600.0


class KindPages(PageSection):
    """A kind is claimed by every tenant's workers, so this page is for operators."""

    current = "kinds"

    def urls(self) -> list[URLPattern]:
        """Return the page's address, and those of its buttons."""
        return [
            self.owner.get("kinds/", self.view, "automate_kinds"),
            self.owner.post("kinds/steer/", self.steer_view, "automate_kinds_steer"),
        ]

    def view(self, request: HttpRequest) -> TemplateResponse:
        """Show the page."""
        require_operator(request)
        found = read_counts(get_kernel().outbox, now=request.GET.get("count") == "now")
        paused = {row.kind: row for row in OutboxPause.objects.using(database())}
        limits = {limit.kind: limit for limit in get_kernel().outbox.limits()}
        by_kind = {} if found is None else found.by_kind
        names = sorted({*by_kind, *paused, *limits, *_seen()})
        return self.page(
            request,
            "kinds.html",
            "Kinds",
            counts=found,
            kinds=[
                {
                    "kind": name,
                    # What was not counted is not zero.
                    "of": None if found is None else _of(by_kind.get(name, {})),
                    "paused": paused.get(name),
                    "limit": limits.get(name),
                }
                for name in names
            ],
            chosen=request.GET.get("kind", "")[:200],
            steer_url=self.url("automate_kinds_steer"),
            outbox_url=self.url("automate_django_outboxitem_changelist"),
        )

    def steer_view(self, request: HttpRequest) -> HttpResponseBase:
        """Pause, resume, limit or free a kind."""
        require_operator(request)
        kind = request.POST.get("kind", "").replace("\x00", "").strip()
        what = request.POST.get("what", "")
        try:
            if not kind or len(kind) > 200:
                raise _unfit("Say which kind is meant")
            messages.success(request, self._steer(request, what, kind))
            forget_counts()
        except LookupError:
            return HttpResponseBadRequest("There is no such action.")
        except AutomateError as error:
            messages.error(request, f"{error.message}.")
        return HttpResponseRedirect(self.url("automate_kinds"))

    def _steer(self, request: HttpRequest, what: str, kind: str) -> str:
        outbox = get_kernel().outbox
        match what:
            case "pause":
                reason = request.POST.get("reason", "").strip()[:500]
                outbox.pause(kind, reason)
                record(request, "pause", about=kind, reason=reason)
                return f"Paused {kind}: no worker takes items of it until it is resumed."
            case "resume":
                outbox.resume(kind)
                record(request, "resume", about=kind)
                return f"Resumed {kind}."
            case "limit":
                given = _limit(request)
                controls_of(outbox).limit(kind, **given)
                record(request, "limit", about=kind, **given)
                return f"Limited {kind}."
            case "unlimit":
                controls_of(outbox).unlimit(kind)
                record(request, "unlimit", about=kind)
                return f"Removed the limit of {kind}."
        raise LookupError(what)


def _of(counted: dict[str, int]) -> dict[str, int]:
    of = {status: counted.get(status, 0) for status in ("RUNNING", "FAILED", "COMPLETED")}
    return {**of, "waiting": counted.get("PENDING", 0) + counted.get("RETRY", 0)}


def _seen() -> set[str]:
    """Return the kinds that are known without counting: of ready items, and of recent activity."""
    kernel = get_kernel()
    with kernel.storage.begin(atomic=False) as rows:
        kinds = set(ready_kinds(rows))
    lately = kernel.outbox.activity(seconds=_LATELY_SECONDS)
    return kinds | {one.kind for one in lately}


def _limit(request: HttpRequest) -> dict[str, Any]:
    names = ("concurrency", "rate", "per_seconds")
    concurrency, rate, per_seconds = (request.POST.get(name, "").strip() for name in names)
    try:
        return {
            "concurrency": int(concurrency) if concurrency else None,
            "rate": int(rate) if rate else None,
            "per_seconds": float(per_seconds or 1),
        }
    except ValueError:
        raise _unfit("a limit is a number") from None


def _unfit(text: str) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, text)
