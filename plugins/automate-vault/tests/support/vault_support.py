"""What an operator does with a Vault, for the tests."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import until

ROOT = "root-canary-9fQ2"
KNOWN = 's3cr3t/vàlue"of the+known=key'


@dataclass(frozen=True)
class Bao:
    """A server, and its operator's requests."""

    url: str
    ca_file: Path | None = None

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("POST", path, body if body is not None else {}, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def request(
        self, method: str, path: str, body: Any = None, *, token: str = ROOT, namespace: str = ""
    ) -> Any:
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"X-Vault-Token": token, "X-Vault-Namespace": namespace},
        )
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
        return json.loads(text) if text else {}

    def is_up(self) -> bool:
        try:
            return self.get("sys/health")["initialized"] and self._takes_requests("secret")
        except (OSError, ValueError, AssertionError):
            return False

    def mount(self, path: str, version: str, namespace: str = "") -> None:
        """Make a key-value engine, and wait until it takes requests."""
        engine = {"type": "kv", "options": {"version": version}}
        self.post(f"sys/mounts/{path}", engine, namespace=namespace)
        if version == "2":
            until(lambda: self._takes_requests(path, namespace))

    def _takes_requests(self, mount: str, namespace: str = "") -> bool:
        # A new engine of version 2 is upgraded to it first, and refuses them meanwhile.
        try:
            self.get(f"{mount}/config", namespace=namespace)
        except AssertionError as error:
            assert "Upgrading" in str(error)
            return False
        return True

    def write(self, path: str, namespace: str = "", **fields: Any) -> None:
        """Write a secret of the default mount, version 2."""
        self.post(f"secret/data/{path}", {"data": fields}, namespace=namespace)

    def token(self, policy: str = "", **options: Any) -> str:
        """Make a token that may do what *policy* says."""
        policies = ["root"]
        if policy:
            self.post("sys/policies/acl/own", {"policy": policy})
            policies = ["default", "own"]
        body = {"policies": policies, "ttl": "1h", **options}
        return self.post("auth/token/create", body)["auth"]["client_token"]

    def role(self, name: str, **options: Any) -> dict[str, str]:
        """Make an AppRole that may read everything, and return its credentials."""
        self.post("sys/policies/acl/reader", {"policy": READ_ALL})
        defaults = {"token_policies": ["default", "reader"], "token_ttl": "1h"}
        self.post(f"auth/approle/role/{name}", {**defaults, **options})
        role_id = self.get(f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret_id = self.post(f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        return {"role_id": role_id, "secret_id": secret_id}


READ_ALL = """
path "secret/*" { capabilities = ["read", "create", "update"] }
path "legacy/*" { capabilities = ["read"] }
"""
