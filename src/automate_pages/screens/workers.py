"""The workers: who works, on what, and what each runs now."""

from __future__ import annotations

from automate_pages.exchange import PageAnswer, PageError, PageRequest
from automate_pages.formats import shown_text


def show(request: PageRequest) -> PageAnswer:
    """Show the workers and what runs; they are the installation's, not a tenant's."""
    if request.user.tenant is not None:
        raise PageError(403, "workers belong to all tenants, and you see one tenant's rows alone")
    outbox = request.kernel.outbox
    workers = [(each, shown_text(request.kernel, each.problem, 500)) for each in outbox.workers()]
    return PageAnswer(
        "workers.html",
        "Workers",
        {"workers": workers, "running": outbox.running(limit=50), "now": outbox.now()},
        live=True,
    )
