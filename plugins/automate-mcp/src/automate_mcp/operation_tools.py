"""Operations as tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp import types

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import Call
from automate_kernel.operations.exposure import check_sent, hiding_secrets
from automate_kernel.operations.schemas.checks import compile_schema
from automate_kernel.operations.schemas.portable import portable
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets.redaction import EnteringRedaction
from automate_mcp.answers import answer, failed, wrapped_schema
from automate_mcp.approved_calls import ApprovedCalls
from automate_mcp.progress import LiveReport, Send
from automate_mcp.settings import Caller, ServeSettings


@dataclass(frozen=True, slots=True)
class OperationTool:
    """One operation of *kernel* as a tool: called at once, or after an approval."""

    kernel: Kernel
    settings: ServeSettings
    approved: ApprovedCalls
    operation: str
    spec: OperationSpec
    schema: dict[str, Any]
    """The schema of the input that a client may give."""

    scope = "operations:call"

    def definition(self, name: str) -> types.Tool:
        """Return the tool as clients see it, called *name*."""
        spec, about = self.spec, self.spec.description
        if spec.destructive:
            about = f"{about}\n\nA person has to approve the call first.".strip()
        return types.Tool(
            name=name,
            title=spec.title or self.operation,
            description=about or None,
            input_schema={"type": "object", **self.schema},
            output_schema=None if spec.destructive else self._output_schema(),
            annotations=types.ToolAnnotations(
                title=spec.title or self.operation,
                read_only_hint=spec.read_only,
                destructive_hint=spec.destructive,
                idempotent_hint=spec.idempotent,
            ),
        )

    async def call(
        self, caller: Caller, arguments: dict[str, Any], key: str | None, send: Send
    ) -> types.CallToolResult:
        """Return the output, or the execution that waits for an approval. *key* is its own."""
        # Here, for the problems by field; and before a person is asked.
        check_sent(self.operation, self.spec, arguments)
        if self.spec.destructive:
            return await self.approved.call(caller, self.operation, arguments, key, send)
        report = LiveReport(EnteringRedaction(self.kernel.redactor))
        call = Call(
            self.operation, caller.tenant_id,
            idempotency_key=caller.key_for(self.operation, key), reports=report,
            # A model's words, most likely: nothing of it was written by an author.
            written={},
        )  # fmt: skip
        timeout = self.settings.timeout_seconds
        with hiding_secrets(arguments, self.spec.json_schema()) as hidden:

            async def send_hidden(value: float, total: float | None, text: str | None) -> None:
                await send(value, total, text and hidden.redact(text))

            async with report.sending(send_hidden):
                # Literally: text of a client is no template and no reference to a secret.
                output = await self.kernel.aperform(call, arguments, timeout=timeout)
        output = hidden.redact_value(output, cut=False)
        problem = self._misfit(output)
        if problem is not None:
            return failed(problem)
        what = f"output of {self.operation!r}"
        return answer(output, most=self.settings.max_output_bytes, what=what)

    def _output_schema(self) -> dict[str, Any] | None:
        return portable(wrapped_schema(self.spec.output_json_schema()))

    def _misfit(self, output: Any) -> AutomateError | None:
        """Return the error for an output that clients would refuse by the schema that they got."""
        schema = self._output_schema()
        if schema is None:
            return None
        structured = output if isinstance(output, dict) else {"result": output}
        problems = compile_schema(schema, f"output of {self.operation!r}")(structured)
        if not problems:
            return None
        listed = "; ".join(map(str, problems[:5]))
        return AutomateError(
            ErrorCodes.DATA_LOSS,
            f"{self.operation} was carried out, but its output doesn't fit its schema: {listed}",
            retryable=False,
        )
