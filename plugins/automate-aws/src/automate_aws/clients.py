"""Clients of AWS's services: made once, called through one door, with errors of the kernel's."""

from __future__ import annotations

import threading
from functools import cache, cached_property, partial
from typing import Any

import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)

from automate_aws.access import AwsAccess
from automate_aws.failures import worded
from automate_aws.transport import AwsTransport
from automate_kernel.base.forks import renew_in_children
from automate_kernel.secrets.logs import guard_loggers, quiet

_ROLE_SESSION = "automate-kernel"


class AwsClients:
    """
    Clients by the names of their services; several threads may use them.

    *max_attempts* takes the place of the one in *access*: 1 for requests that must not be repeated.
    """

    def __init__(self, access: AwsAccess, *, max_attempts: int | None = None) -> None:
        self._access = access
        self._attempts = max_attempts or access.max_attempts
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the clients, whose connections are another process's; close none."""
        self._lock = threading.RLock()
        self._clients: dict[str, Any] = {}
        # With credentials of a role come a client and locks of their own.
        for name in ("_transport", "_session"):
            vars(self).pop(name, None)

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Call an operation of a service by botocore's name of it, such as ``get_object``."""
        with quiet(), worded(f"{service} {operation}"):
            client = self._client(service)
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
            return answer

    def presigned_url(self, operation: str, seconds: int, **parameters: Any) -> str:
        """Return a URL that carries out an operation of S3 without credentials, for *seconds*."""
        with quiet(), worded(f"s3 {operation}"):
            url: str = self._client("s3").generate_presigned_url(
                operation, Params=parameters, ExpiresIn=seconds
            )
            return url

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()
        if "_transport" in vars(self):
            self._transport.close()

    def __repr__(self) -> str:
        return "<AwsClients>"

    def _client(self, service: str) -> Any:
        # botocore makes one client at a time; what it has made may be shared.
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._made(self._session, service)
            return self._clients[service]

    def _made(self, session: Any, service: str, **credentials: Any) -> Any:
        access = self._access
        client = session.create_client(
            service,
            endpoint_url=access.endpoint_url,
            config=self._config,
            **{"region_name": access.region, **credentials},
        )
        client.meta.events.register_last("before-send", self._transport)
        guard_loggers("botocore", "urllib3")
        return client

    @cached_property
    def _config(self) -> Any:
        own = self._access.endpoint_url is not None
        return Config(
            connect_timeout=min(self._access.timeout_seconds, 10.0),
            read_timeout=self._access.timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            # Only the config says where requests go.
            ignore_configured_endpoint_urls=True,
            user_agent_extra="automate-aws/0.1",
            # Compatible stores know one host name for all buckets, and few of the checksums.
            s3={"addressing_style": "path"} if own else None,
            request_checksum_calculation="when_required" if own else None,
            response_checksum_validation="when_required" if own else None,
        )

    @cached_property
    def _transport(self) -> AwsTransport:
        verify: bool | str = self._access.ca_file or True
        return AwsTransport(seconds=self._access.timeout_seconds, verify=verify)

    @cached_property
    def _session(self) -> Any:
        access = self._access
        session = _new_session(access.profile)
        if access.access_key_id is not None and access.secret_access_key is not None:
            session.set_credentials(
                access.access_key_id,
                access.secret_access_key.get_secret_value(),
                access.session_token.get_secret_value() if access.session_token else None,
            )
        return session if access.role_arn is None else self._as_role(session, access.role_arn)

    def _as_role(self, source: Any, role_arn: str) -> Any:
        """Return a session with the credentials of a role, which *source* assumes."""
        more = {"RoleSessionName": _ROLE_SESSION}
        if self._access.external_id is not None:
            more["ExternalId"] = self._access.external_id
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=partial(self._made, source),
            source_credentials=source.get_credentials(),
            role_arn=role_arn,
            extra_args=more,
        )
        session = _new_session(self._access.profile)
        resolver = CredentialResolver([_RoleProvider(fetcher)])
        session.register_component("credential_provider", resolver)
        return session


def _new_session(profile: str | None) -> Any:
    session = botocore.session.Session(profile=profile)
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Any:
    # The descriptions of services take longest to read, and are the same for all.
    return botocore.loaders.create_loader()


class _RoleProvider(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    """Gives the credentials of a role, fetched when a request needs them."""

    METHOD = "automate-aws-role"

    def __init__(self, fetcher: Any) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> Any:
        """Return credentials that renew themselves."""
        return DeferredRefreshableCredentials(
            method="assume-role", refresh_using=self._fetcher.fetch_credentials
        )
