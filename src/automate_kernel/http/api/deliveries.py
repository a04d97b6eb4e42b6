"""``/deliveries``: the last deliveries of webhooks and polls, and their repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automate_kernel.http.api.exchange import ApiPage, ApiRequest
from automate_kernel.triggers.webhooks.refusals import RefusedDelivery


def list_deliveries(request: ApiRequest) -> ApiPage:
    """List the deliveries that were accepted, the latest first."""
    given = {name: text for name, text in request.query.items() if name == "connector"}
    return request.page(request.kernel.deliveries.page, "deliveries", **given)


def list_refused(request: ApiRequest) -> Sequence[RefusedDelivery]:
    """List why deliveries started nothing, the latest first. Equal reasons are counted together."""
    return request.kernel.deliveries.refused.all(**request.query)


def redeliver(request: ApiRequest, delivery_id: str) -> Any:
    """Emit the event of an accepted delivery again: what listens to it now starts once more."""
    item_id = request.kernel.deliveries.redeliver(delivery_id, seen=request.body.get("seen"))
    return {"id": item_id}
