"""``/outbox``: items, kinds, and the operator's commands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from automate_kernel.http.api import exchange
from automate_kernel.http.api.exchange import (
    ApiPage,
    ApiRequest,
    WholeValue,
    require,
    uuid_of,
)
from automate_kernel.http.api.problems import ApiError
from automate_kernel.monitoring.waiting import why_item_waits
from automate_kernel.outbox import ErrorGroup, OutboxItem
from automate_kernel.outbox.controls import controls_of
from automate_kernel.outbox.limits import Limit
from automate_kernel.outbox.tenant_counts import counts_of_tenant

_MOST_AT_ONCE = 10_000


def list_items(request: ApiRequest) -> ApiPage:
    """List items, the newest first, without what they carry."""
    read = partial(controls_of(request.kernel.outbox).page, payloads=False, look=exchange.LOOKED)
    return request.page(read, "items", **request.filters)


def list_errors(request: ApiRequest) -> Sequence[ErrorGroup]:
    """Group the failed items by kind and by where their error came from, largest first."""
    return controls_of(request.kernel.outbox).error_groups(**request.filters)


def show(request: ApiRequest, item_id: str) -> Any:
    """Read one item with its payload, in which secrets are hidden."""
    item = _item(request, item_id)
    attempts = request.kernel.outbox.failed_attempts(item.id)
    reasons = why_item_waits(request.kernel, item)
    return WholeValue(item, failed_attempts=attempts, reasons=reasons)


def show_stats(request: ApiRequest) -> Any:
    """Count items by kind and status, and say how late the oldest is that is due."""
    tenant = request.client.own_tenant
    if tenant is None:
        return WholeValue(request.kernel.outbox.stats(), counted_among=None)
    own = counts_of_tenant(request.kernel.storage, tenant)
    return {
        "counts": own.by_kind, "counted_among": own.looked, "paused": (),
        "oldest_due_seconds": own.oldest_due_seconds,
    }  # fmt: skip


def requeue(request: ApiRequest, item_id: str) -> OutboxItem:
    """Make a failed or cancelled item wait again, with all its attempts."""
    return _change(request, item_id, "requeue", "It has neither failed nor been cancelled.")


def cancel(request: ApiRequest, item_id: str) -> OutboxItem:
    """Cancel an item that waits, or ask one that runs to stop."""
    return _change(request, item_id, "cancel", "It is finished, or asked to stop already.")


def discard(request: ApiRequest, item_id: str) -> None:
    """Delete an item that is finished."""
    item = _item(request, item_id)
    require(controls_of(request.kernel.outbox).discard([item.id]), "It is not finished.")


def reschedule(request: ApiRequest, item_id: str) -> OutboxItem:
    """Change when an item that waits is due."""
    return _change(request, item_id, "reschedule", "It does not wait.", **request.body)


def change_many(request: ApiRequest) -> Any:
    """Requeue, cancel or discard the items with these ids, or all that match a filter."""
    given = request.command
    command, ids = given.pop("action"), given.pop("ids", None)
    if command == "discard" and not request.client.allows("outbox.discard"):
        raise ApiError(403, "You may not discard items.")
    store, tenant = request.kernel.outbox, given.pop("tenant_id")
    if ids is not None:
        own = store.find(ids=[str(each) for each in ids], tenant_id=tenant, limit=len(ids))
        options = {"per_second": given["per_second"]} if "per_second" in given else {}
        able = controls_of(store) if command == "discard" else store
        return {"changed": getattr(able, command)([item.id for item in own], **options)}
    # A request must end before its client gives up; the client can ask again.
    given.setdefault("limit", _MOST_AT_ONCE)
    return {
        "changed": getattr(controls_of(store), f"{command}_matching")(tenant_id=tenant, **given)
    }


def _item(request: ApiRequest, item_id: str) -> OutboxItem:
    return request.client.visible(request.kernel.outbox.get(uuid_of(item_id)))


def _change(
    request: ApiRequest, item_id: str, command: str, refusal: str, **options: Any
) -> OutboxItem:
    item = _item(request, item_id)
    store = request.kernel.outbox
    able = controls_of(store) if command == "reschedule" else store
    require(getattr(able, command)([item.id], **options), refusal)
    return _item(request, item_id)


# -- kinds -------------------------------------------------------------------------------------


def list_kinds(request: ApiRequest) -> list[Any]:
    """List the kinds of items with their counts, pauses and limits."""
    stats = request.kernel.outbox.stats()
    limits = {each.kind: each for each in request.kernel.outbox.limits()}
    names = sorted({*stats.counts, *stats.paused, *limits})
    return [_kind(name, stats, limits.get(name)) for name in names]


def pause_kind(request: ApiRequest, kind: str) -> Any:
    """Stop claiming items of a kind, on every worker."""
    request.kernel.outbox.pause(kind, request.body.get("reason", ""))
    return _kind_now(request, kind)


def resume_kind(request: ApiRequest, kind: str) -> Any:
    """Claim items of a paused kind again."""
    require(kind in request.kernel.outbox.stats().paused, "It is not paused.")
    request.kernel.outbox.resume(kind)
    return _kind_now(request, kind)


def limit_kind(request: ApiRequest, kind: str) -> Any:
    """Limit the items of a kind that run at once, or start in a time; it holds on all workers."""
    controls_of(request.kernel.outbox).limit(kind, **request.body)
    return _kind_now(request, kind)


def unlimit_kind(request: ApiRequest, kind: str) -> Any:
    """Lift the limit of a kind; one that code declares comes back when a worker starts."""
    require(controls_of(request.kernel.outbox).unlimit(kind), "It has no limit.")
    return _kind_now(request, kind)


def _kind_now(request: ApiRequest, kind: str) -> Mapping[str, Any]:
    limits = {each.kind: each for each in request.kernel.outbox.limits()}
    return _kind(kind, request.kernel.outbox.stats(), limits.get(kind))


def _kind(kind: str, stats: Any, limit: Limit | None) -> Mapping[str, Any]:
    return {
        "kind": kind, "counts": stats.counts.get(kind, {}), "late_seconds": stats.late.get(kind),
        "paused": kind in stats.paused, "limit": limit,
    }  # fmt: skip
