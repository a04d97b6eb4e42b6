"""Slack's Web API: its calls, its pages, and its way to say no."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from automate_http import BearerAuth, Cursor, ServiceClient
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import PluginContext
from automate_slack.config import SlackConfig
from automate_slack.failures import failure_of
from automate_slack.forms import value_at

T = TypeVar("T", bound=BaseModel)

_PAGE = 200
_UPLOAD_SECONDS = 120.0
_SLACKS_ORIGIN = re.compile(r"https://[a-z0-9.-]+\.slack(-gov)?\.com(:[0-9]+)?")


class _Answer(BaseModel):
    """Slack's envelope. What a method answers beside it differs."""

    model_config = {"extra": "allow"}

    ok: bool


class _Pages(Cursor):
    """The pages of a *method*, in which Slack may refuse with status 200."""

    def __init__(self, api: WebApi, method: str, items: str) -> None:
        super().__init__("response_metadata.next_cursor", items=items)
        self._api, self._method = api, method

    def items_of(self, content: Any) -> list[Any]:
        """Return the items, or raise Slack's error."""
        self._api.require_ok(self._method, content)
        return super().items_of(content)


class WebApi:
    """
    Calls the methods of Slack's Web API with the bot's token.

    A limit that Slack sets (429 with ``Retry-After``) makes later calls wait, or fail with the
    time at which they may be tried again.
    """

    def __init__(self, config: SlackConfig, ctx: PluginContext) -> None:
        self._config, self._ctx = config, ctx
        self._client = ServiceClient(
            config.base_url,
            ctx=ctx,
            auth=BearerAuth(config.account),
            timeout_seconds=config.timeout_seconds,
            allow_private_networks=config.allow_private_networks,
            allow_plain_http=config.allow_plain_http,
        )

    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to *method*; fields that are None are left out. Raises its error."""
        # Every method takes a form; a few of those that read take no JSON.
        form = {name: _text(value) for name, value in fields.items() if value is not None}
        answer = await self._client.apost(f"/{method}", form=form, returns=_Answer)
        content = answer.model_dump()
        self.require_ok(method, content)
        return content

    async def call_for(self, returns: type[T], method: str, **fields: Any) -> T:
        """Return the answer to *method* as *returns*, or raise ``FAILED_PRECONDITION``."""
        return shaped(returns, method, await self.call(method, **fields))

    async def call_for_text(self, place: tuple[str, ...], method: str, **fields: Any) -> str:
        """Return the text at a *place* of the answer to *method*."""
        found = value_at(await self.call(method, **fields), *place)
        if not isinstance(found, str) or not found:
            raise _other_shape(method, f"no text at {'.'.join(place)}")
        return found

    async def items(
        self, method: str, items: str, *, most: int, **fields: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield at most *most* of the *items* that *method* lists, page by page."""
        query = {name: _text(value) for name, value in fields.items() if value is not None}
        query["limit"] = str(min(most, _PAGE))
        found = self._client.aitems(
            f"/{method}", pages=_Pages(self, method, items), query=query, max_items=most
        )
        async with aclosing(found):  # type: ignore[type-var]
            async for each in found:
                if not isinstance(each, dict):
                    raise _other_shape(method, f"no objects in {items}")
                yield each

    async def upload(self, url: str, content: bytes) -> None:
        """Send *content* to the *url* that Slack has given for it; never the token."""
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        origin = f"{scheme}://{host}"
        if not self._is_slacks(origin):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, "Slack gave an upload address that isn't its own"
            )
        client = ServiceClient(
            origin,
            ctx=self._ctx,
            timeout_seconds=max(self._config.timeout_seconds, _UPLOAD_SECONDS),
            max_redirects=1,
            allow_private_networks=self._config.allow_private_networks,
        )
        try:
            await client.asend(
                "POST", f"/{path}", content=content,
                headers={"content-type": "application/octet-stream"},
            )  # fmt: skip
        finally:
            await client.aclose()

    def require_ok(self, method: str, answer: Any) -> None:
        """Raise Slack's error unless *answer* says that all went well."""
        if not isinstance(answer, Mapping) or not isinstance(answer.get("ok"), bool):
            raise _other_shape(method, "no field 'ok'")
        if not answer["ok"]:
            raise failure_of(method, answer, self._config.account)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _is_slacks(self, origin: str) -> bool:
        own = self._config.base_url
        if own == origin or own.startswith(f"{origin}/"):
            return True
        # All of it: https://x.slack.com:y@evil.example is another's.
        return _SLACKS_ORIGIN.fullmatch(origin) is not None


def shaped(returns: type[T], method: str, content: Any) -> T:
    """Return what *method* answered as *returns*; raise ``FAILED_PRECONDITION`` if it isn't one."""
    try:
        return returns.model_validate(content)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # The words of the validation would be a bug's: this is Slack's, or a proxy's.
    raise _other_shape(method, f"{'.'.join(map(str, wrong['loc']))[:80]}: {wrong['type']}")


def _other_shape(method: str, problem: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"Slack's {method} answered JSON of another shape: {problem}",
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
