"""The connector ``openapi``: the operations of a document as actions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from automate_http import Auth, ServiceClient
from automate_http.failures import forbid_repeat
from automate_http.headers import call_key, key_as_header
from automate_http.urls import parse_base_url, require_encrypted
from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.portal import Portal
from automate_kernel.plugins.connectors import ActionSpec, Connector, ConnectorContext
from automate_openapi.actions import Actions, ApiAction, uncallable
from automate_openapi.answers import check_output, output_of
from automate_openapi.config import OpenApiConfig
from automate_openapi.parameters import Pair, filled
from automate_openapi.security import Security
from automate_openapi.servers import base_url
from automate_openapi.source import DocumentSource


class OpenApiConnector(Connector):
    """
    The operations of one OpenAPI document, each an action.

    The document is read at the first call, or when somebody asks for the schemas. Register the
    class under a key for each service: ``plugins = ["github=automate_openapi:OpenApiConnector"]``.
    A connector with credentials of its own that offers a document's operations too gives *auth*:
    then it is sent with each request, and the config's ``auth`` with none.
    """

    key = "openapi"
    display_name = "OpenAPI"

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        *,
        ctx: ConnectorContext | None = None,
        auth: Auth | None = None,
    ) -> None:
        super().__init__(config, ctx=ctx)
        self._auth = auth
        self._settings: OpenApiConfig = self.parse_config(config)
        self._source = DocumentSource(self._settings, self.ctx.logger)
        self._lock = threading.Lock()
        self._known: tuple[Actions, Security] | None = None
        self._clients: dict[tuple[str, tuple[str, ...]], ServiceClient] = {}
        self._retired: list[ServiceClient] = []

    @classmethod
    def config_schema(cls) -> type[OpenApiConfig]:
        """Return the model of the config: the document, credentials, pages, bounds."""
        return OpenApiConfig

    async def own_operations(self) -> Mapping[str, ActionSpec]:
        """Return the specs of the wanted actions, each made when it is looked up."""
        return (await self._current())[0]

    async def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
        """Send the request that *action* stands for, and return the answer."""
        actions, security = await self._current()
        if action not in actions:
            self.find_own(action, actions)
        found = actions.action(action)
        if found.problem is not None:
            raise uncallable(action, found.problem)
        try:
            output = await self._sent(found, actions, security, input_data)
            # On a thread: of a large answer, or at the first call, it takes a while.
            how = self._settings.validate_output
            await asyncio.to_thread(check_output, found, output, how, self.ctx.logger)
        except AutomateError as error:
            self._judge(found, error)
            raise
        return output

    async def check(self) -> str:
        """Read the document, and reach the service, without credentials and with any answer."""
        actions, security = await self._current()
        # Some documents have their servers beside the operations.
        first = next((actions.action(name).place for name in actions), None)
        address = base_url(actions.document, self._settings, first)
        if self._auth is not None or self._settings.auth:
            require_encrypted(
                parse_base_url(address), allow_plain_http=self._settings.allow_plain_http
            )
        try:
            await self._client(security, address, ()).asend("HEAD", "/")
        except AutomateError as error:
            if "status" not in error.details:
                raise
        return f"{actions.document.title} at {address} has {len(actions)} wanted action(s)"

    def close(self) -> None:
        """Close the connections. The next call opens new connections."""
        with self._lock:
            clients, self._clients = [*self._clients.values(), *self._retired], {}
            self._retired = []
        for client in clients:
            client.close()
        if not self._source.empty:
            portal = Portal()
            portal.run(self._source.aclose())
            portal.close()

    # -- the document ------------------------------------------------------------------------

    async def _current(self) -> tuple[Actions, Security]:
        document = await self._source.document()
        known = self._known
        if known is not None and known[0].document is document:
            return known
        actions = await asyncio.to_thread(Actions, document, self._settings, self.ctx.logger)
        spent: list[ServiceClient] = []
        with self._lock:
            if self._known is None or self._known[0].document is not document:
                self._known = actions, Security(document, self._settings)
                # These know another document's credentials. Requests on their way still end: the
                # connections are closed when the next document comes, or with the connector.
                spent, self._retired = self._retired, list(self._clients.values())
                self._clients = {}
            known = self._known
        for client in spent:
            await asyncio.to_thread(client.close)
        return known

    def _client(self, security: Security, address: str, names: tuple[str, ...]) -> ServiceClient:
        """Return the client for the service at *address* with the credentials *names*."""
        with self._lock:
            found = self._clients.get((address, names))
            if found is None:
                config = self._settings
                found = self._clients[address, names] = ServiceClient(
                    address,
                    ctx=self.ctx,
                    auth=self._auth or security.auth(names, address),
                    headers=config.headers,
                    timeout_seconds=config.timeout_seconds,
                    max_response_bytes=config.max_response_bytes,
                    max_redirects=config.max_redirects,
                    allow_private_networks=config.allow_private_networks,
                    allow_plain_http=config.allow_plain_http,
                    ca_file=config.ca_file,
                )
            return found

    # -- a request ---------------------------------------------------------------------------

    async def _sent(
        self, action: ApiAction, actions: Actions, security: Security, values: dict[str, Any]
    ) -> Any:
        path, headers = _target(action, values)
        address = base_url(actions.document, self._settings, action.place)
        names = security.chosen(action.place) if self._auth is None else ()
        client = self._client(security, address, names)
        listed = action.input.max_items
        if listed is not None and listed in values and action.pages is not None:
            found = client.aitems(
                path, pages=action.pages.made(), max_items=values[listed], headers=headers
            )
            return [item async for item in found]
        content, media_type = _body(action, values)
        if media_type:
            headers["content-type"] = media_type
        method, name = action.place.method.upper(), self._settings.idempotency_header
        key = call_key(method)
        if name is not None and key is not None:
            # Not of the content: what is resumed with another is refused, or answered as before.
            headers[name.lower()] = key_as_header(f"{key}\n{action.spec.name}")
        reply = await client.asend(method, path, content=content, headers=headers)
        return output_of(reply)

    def _judge(self, action: ApiAction, error: AutomateError) -> None:
        """Let nobody repeat a call that isn't idempotent and may have been carried out."""
        key = call_key(action.place.method.upper())
        known = self._settings.idempotency_header is not None and key is not None
        if not action.spec.idempotent and not known:
            forbid_repeat(
                error,
                f"it is unknown whether {action.spec.name!r} was done: look, or set "
                "hints.idempotent if it may be done twice",
            )


def _target(action: ApiAction, values: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the path with its query, and the headers."""
    given = [each for each in action.input.parameters if each.key in values]
    path = filled(action.place.path, [each for each in given if each.location == "path"], values)
    query: list[Pair] = []
    cookies: list[Pair] = []
    headers: dict[str, str] = {}
    for each in given:
        value = values[each.key]
        if each.location == "query":
            query += each.pairs(value)
        elif each.location == "cookie":
            cookies += each.pairs(value)
        elif each.location == "header":
            headers[each.name.lower()] = each.header(value)
    if query:
        path += "?" + "&".join(f"{name}={value}" for name, value in query)
    if cookies:
        headers["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies)
    return path, headers


def _body(action: ApiAction, values: Mapping[str, Any]) -> tuple[bytes, str]:
    body = action.input.body
    if body is None:
        return b"", ""
    known = {each.key for each in action.input.parameters} | {*body.fields.values()}
    rest = {name: value for name, value in values.items() if name not in known}
    return body.encoded(values, rest)
