"""Agents whose output is an object that fits a JSON Schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, StructuredDict, ToolOutput
from pydantic_ai.models import Model

from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.operations.schemas.checks import compile_schema


def structured_output(schema: dict[str, Any], how: Literal["tool", "native", "prompted"]) -> Any:
    """Return the output type for *schema*, asked for as *how* says; it checks nothing yet."""
    if schema.get("type") != "object":
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "the schema of a structured output describes an object",
            hint='begin with {"type": "object", "properties": …}',
        )
    kind: Any = StructuredDict(schema, name=str(schema.get("title") or "answer"))
    wrappers: dict[str, Any] = {
        "tool": ToolOutput, "native": NativeOutput, "prompted": PromptedOutput
    }  # fmt: skip
    return wrappers[how](kind)


def checking(schema: dict[str, Any]) -> Any:
    """Return a validator of outputs by *schema*, which asks the model for a better one."""
    check = compile_schema(schema, "output")

    def validate(output: dict[str, Any]) -> dict[str, Any]:
        problems = check(output)
        if problems:
            raise ModelRetry("; ".join(map(str, problems[:10])))
        return output

    return validate


def structured_agent(
    model: Model,
    schema: dict[str, Any],
    *,
    how: Literal["tool", "native", "prompted"],
    retries: int,
) -> Agent[None, dict[str, Any]]:
    """Return an agent that asks *model* again, at most *retries* times, until its output fits."""
    output = structured_output(schema, how)
    agent: Agent[None, dict[str, Any]] = Agent(model, output_type=output, retries=retries)
    agent.output_validator(checking(schema))
    return agent
