"""The page Access: who is logged in, and with which tokens; ended and revoked by a button."""

from __future__ import annotations

from typing import Any

from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageRequest


def show(request: PageRequest) -> PageAnswer:
    """Show the user's sessions, and to an admin all sessions and tokens of the tenant."""
    kernel, user = request.kernel, request.user
    administers = request.may("administer")
    own = kernel.sessions.of(user.name, user.tenant)
    everybody = kernel.sessions.all(tenant_id=user.tenant) if administers else []
    mine = {each.id for each in own}
    tokens: Any = None
    if administers:
        tokens = kernel.tokens.page(tenant_id=user.tenant, after=request.text("after"))
    return PageAnswer(
        "access.html",
        "Access",
        {
            "own": own,
            "others": [each for each in everybody if each.id not in mine],
            "current": request.session,
            "administers": administers,
            "tokens": tokens.tokens if tokens else [],
            "next": request.url("access", after=tokens.after) if tokens and tokens.after else "",
        },
    )


def end_session(request: PageRequest, session_id: str) -> OrderAnswer:
    """End a session: of the user's own, or as an admin any of the tenant."""
    user = request.user
    whose: dict[str, str | None] = {"user_name": user.name, "tenant_id": user.tenant}
    if request.may("administer"):
        whose = {} if user.tenant is None else {"tenant_id": user.tenant}
    if not request.kernel.sessions.end(session_id, **whose):
        raise PageError(404, "there is no such session")
    return OrderAnswer(request.url("access"), "The session is ended.")


def revoke_token(request: PageRequest, prefix: str) -> OrderAnswer:
    """Revoke a token, and end the sessions that it began."""
    request.require("administer")
    token = request.kernel.tokens.get(prefix)
    if token is None or request.user.tenant not in (None, token.tenant_id):
        raise PageError(404, "there is no such token")
    if not request.kernel.tokens.revoke(prefix):
        return OrderAnswer(request.url("access"), "It had been revoked before.", "warn")
    return OrderAnswer(request.url("access"), "The token is revoked, and its sessions are ended.")
