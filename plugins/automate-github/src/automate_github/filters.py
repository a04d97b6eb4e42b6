"""The choice of webhooks by repository, action, branch and sender."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from automate_github.config import WebhookFilter
from automate_http.pages import field_of

_HEADS = "refs/heads/"
_BRANCHES = {
    "pull_request": "pull_request.base.ref",
    "pull_request_review": "pull_request.base.ref",
    "pull_request_review_comment": "pull_request.base.ref",
    "workflow_run": "workflow_run.head_branch",
    "workflow_job": "workflow_job.head_branch",
    "check_run": "check_run.check_suite.head_branch",
    "check_suite": "check_suite.head_branch",
}


def branch_of(event: str, payload: Any) -> str | None:
    """Return the branch that *event* is about, or None where it has none."""
    ref = field_of(payload, "ref")
    if event == "push":
        is_branch = isinstance(ref, str) and ref.startswith(_HEADS)
        return ref.removeprefix(_HEADS) if is_branch else None
    if event in ("create", "delete"):
        found = ref if field_of(payload, "ref_type") == "branch" else None
    else:
        found = field_of(payload, _BRANCHES[event]) if event in _BRANCHES else None
    return found if isinstance(found, str) else None


def refusal(filters: Mapping[str, WebhookFilter], event: str, payload: Any) -> str | None:
    """Return the reason for which *event* doesn't count, or None if it does."""
    for pattern, wanted in filters.items():
        if not fnmatchcase(event, pattern):
            continue
        for what, allowed, found in (
            ("repository", wanted.repositories, field_of(payload, "repository.full_name")),
            ("action", wanted.actions, field_of(payload, "action")),
            ("branch", wanted.branches, branch_of(event, payload)),
            ("sender", wanted.senders, field_of(payload, "sender.login")),
        ):
            if allowed is not None and not _fits(found, allowed, what):
                return f"no {what} that counts here"
    return None


def _fits(found: Any, allowed: list[str], what: str) -> bool:
    if not isinstance(found, str):
        return False
    if what in ("repository", "sender"):  # GitHub keeps their case, and doesn't tell by it
        return any(fnmatchcase(found.lower(), each.lower()) for each in allowed)
    return any(fnmatchcase(found, each) for each in allowed)
