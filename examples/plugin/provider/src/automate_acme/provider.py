"""The provider: capabilities of Acme Inc."""

from typing import Annotated

from automate_kernel import BaseProvider, capability
from pydantic import BaseModel, Field


class AcmeConfig(BaseModel):
    """The provider's part of an application's config."""

    decimals: int = Field(2, ge=0, le=12, description="The digits that a result is rounded to.")


class Sum(BaseModel):
    """A result."""

    total: float = Field(description="The sum.")


class AcmeProvider(BaseProvider):
    """Calculates with Acme Inc."""

    key = "acme"
    display_name = "Acme Inc"

    @classmethod
    def config_schema(cls) -> type[AcmeConfig]:
        """Return the model of the config."""
        return AcmeConfig

    @capability(read_only=True)
    def add(self, numbers: Annotated[list[float], Field(description="The terms.")]) -> Sum:
        """Add numbers up."""
        return Sum(total=round(sum(numbers), self.config["decimals"]))

    def check(self) -> str:
        """Try the service: here one asks for the least that the capabilities need."""
        return "ready"
