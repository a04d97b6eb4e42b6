"""A provider in the style of the specification: its own ``__init__``, specs and execution."""

from __future__ import annotations

from typing import Any

from automate_kernel import BaseProvider, CapabilitySpec, ProviderContext
from pydantic import BaseModel


class MathConfig(BaseModel):
    precision: int = 2


class Sum(BaseModel):
    numbers: list[float]


class FrozenMath(BaseProvider):
    """Arithmetic."""

    key = "frozen-math"
    display_name = "Frozen math"

    def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
        self.config = config
        self.ctx = ctx

    @classmethod
    def capabilities(cls) -> list[CapabilitySpec]:
        return [
            CapabilitySpec("add", Sum, {"type": "object"}, True),
            CapabilitySpec(name="double", input_schema={"type": "object", "required": ["x"]}),
        ]

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return MathConfig

    def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
        if name == "add":
            return {"total": round(sum(input_data["numbers"]), self.config["precision"])}
        if name == "double":
            return {"x": input_data["x"] * 2}
        return super().execute_capability(name, input_data)
