"""Actions and capabilities that are called at once."""

from __future__ import annotations

from typing import Any

from automate_kernel.context import Call
from automate_kernel.kernel.assembly import Assembly
from automate_kernel.operations import OperationSpec
from automate_kernel.outbox.payloads import check_text

__all__ = ["Calling"]


class Calling(Assembly):
    """The part of `Kernel` that calls actions and capabilities."""

    def invoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """
        Call an action or capability now and return its output.

        Text in *input* may be ``$secret:KEY``; the output is redacted. Raises `AutomateError`.
        """
        call = _call(operation, tenant_id, idempotency_key)
        return self._invoker.invoke(operation, self._input(input), call=call, timeout=timeout)

    async def ainvoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """`invoke` for asynchronous code."""
        call = _call(operation, tenant_id, idempotency_key)
        return await self._invoker.ainvoke(
            operation, self._input(input), call=call, timeout=timeout
        )

    def _input(self, given: Any) -> Any:
        return self._render_config({} if given is None else given)

    def operation(self, name: str) -> OperationSpec:
        """What the action or capability *name* takes and gives; raises ``NOT_FOUND``."""
        return self._invoker.spec(name)

    def connector(self, key: str) -> Any:
        """The connector *key*, configured."""
        return self._invoker.instance("connector", key)

    def provider(self, key: str) -> Any:
        """The provider *key*, configured."""
        return self._invoker.instance("provider", key)


def _call(operation: str, tenant_id: str | None, idempotency_key: str | None) -> Call:
    if tenant_id is not None:
        check_text(tenant_id, "tenant_id")
    if idempotency_key is not None:
        check_text(idempotency_key, "idempotency_key", hint="pass None for no key")
    return Call(operation, tenant_id, idempotency_key=idempotency_key)
