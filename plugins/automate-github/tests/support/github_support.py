"""A part of GitHub's document, secrets, and webhooks as GitHub signs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN = "ghp_never-to-be-seen-2718281828"
HOOK, OLD_HOOK = "the-secret-of-the-hook", "the-secret-before-it-was-replaced"
SECRETS = {"GITHUB_TOKEN": TOKEN, "GITHUB_WEBHOOK_SECRET": HOOK, "OLD": OLD_HOOK}

_REPO = "/repos/{owner}/{repo}"
_PATHS = (
    "/rate_limit",
    "/search/issues",
    "/user/repos",
    "/app/installations/{installation_id}/access_tokens",
    f"{_REPO}/issues",
    f"{_REPO}/issues/{{issue_number}}",
    f"{_REPO}/issues/{{issue_number}}/comments",
    f"{_REPO}/issues/{{issue_number}}/labels",
    f"{_REPO}/pulls",
    f"{_REPO}/pulls/{{pull_number}}",
    f"{_REPO}/pulls/{{pull_number}}/files",
    f"{_REPO}/pulls/{{pull_number}}/merge",
    f"{_REPO}/pulls/{{pull_number}}/requested_reviewers",
    f"{_REPO}/pulls/{{pull_number}}/reviews",
    f"{_REPO}/git/refs",
    f"{_REPO}/git/ref/{{ref}}",
    f"{_REPO}/commits",
    f"{_REPO}/commits/{{ref}}",
    f"{_REPO}/compare/{{basehead}}",
    f"{_REPO}/actions/runs",
    f"{_REPO}/actions/workflows/{{workflow_id}}/runs",
    f"{_REPO}/statuses/{{sha}}",
    f"{_REPO}/check-runs",
    f"{_REPO}/actions/workflows/{{workflow_id}}/dispatches",
    f"{_REPO}/contents/{{path}}",
    f"{_REPO}/releases",
)
_REFERENCE = re.compile(r'"#/components/([^/"]+)/([^"]+)"')


def cut_out(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths of the actions, and all that they refer to."""
    paths = {path: whole["paths"][path] for path in _PATHS}
    parts: dict[str, dict[str, Any]] = {}
    waiting = _REFERENCE.findall(json.dumps(paths))
    while waiting:
        kind, name = waiting.pop()
        if name not in parts.setdefault(kind, {}):
            part = parts[kind][name] = whole["components"][kind][name]
            waiting += _REFERENCE.findall(json.dumps(part))
    parts.pop("examples", None)
    head = {name: whole[name] for name in ("openapi", "info", "servers")}
    return {**head, "paths": _by_schema(paths), "components": _by_schema(parts)}


def _by_schema(part: Any) -> Any:
    """
    Leave out whole answers that are examples, and the ``Link`` to GitHub's own host.

    Some fit no schema, and Prism 5 mixes them up. It makes answers by the schemas then.
    """
    if isinstance(part, list):
        return [_by_schema(each) for each in part]
    if not isinstance(part, dict):
        return part
    media = "schema" in part and "in" not in part
    left_out = ({"example", "examples"} if media else set()) | {"Link"}
    return {name: _by_schema(each) for name, each in part.items() if name not in left_out}


def signed(
    event: str, payload: Any, *, secret: str = HOOK, delivery: str | None = None
) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a webhook, signed as GitHub's documentation says."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-GitHub-Hook-ID": "292430182",
        "X-Hub-Signature-256": f"sha256={digest}",
    }, body


REPOSITORY = {"id": 1, "name": "shop", "full_name": "Octo/shop", "private": True}
SENDER = {"login": "ada", "id": 7, "type": "User"}


def push(ref: str = "refs/heads/main", **more: Any) -> dict[str, Any]:
    """Return the payload of a push."""
    return {
        "ref": ref, "before": "0" * 40, "after": "a" * 40, "repository": REPOSITORY,
        "sender": SENDER, "commits": [], **more,
    }  # fmt: skip


def pull_request(action: str = "opened", base: str = "main") -> dict[str, Any]:
    """Return the payload of a pull request."""
    return {
        "action": action,
        "number": 12,
        "pull_request": {
            "number": 12, "title": "Faster", "state": "open", "user": SENDER,
            "head": {"ref": "fast", "sha": "b" * 40}, "base": {"ref": base, "sha": "a" * 40},
            "html_url": "https://github.com/Octo/shop/pull/12", "a_new_field": {"kept": True},
        },
        "repository": REPOSITORY,
        "sender": SENDER,
    }  # fmt: skip


_PAIR = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY = _PAIR.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.NoEncryption(),
).decode()
"""The private key of an App, as GitHub gives it out."""
PUBLIC_KEY = _PAIR.public_key()
