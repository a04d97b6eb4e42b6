"""The connector: actions and webhooks of Acme Inc."""

from automate_kernel import Connector, TriggerSpec, action
from automate_kernel.triggers.webhooks import HmacSignature
from pydantic import BaseModel, Field


class AcmeConfig(BaseModel):
    """The connector's part of an application's config."""

    greeting: str = Field("Hello", description="The word that a message begins with.")


class Message(BaseModel):
    """A message, as Acme Inc sends and receives it."""

    name: str = Field(description="The person that it is for.")
    text: str = Field("", description="The words of the message.")


class AcmeConnector(Connector):
    """Sends messages with Acme Inc, and hears of those that came in."""

    key = "acme"
    display_name = "Acme Inc"

    @classmethod
    def config_schema(cls) -> type[AcmeConfig]:
        """Return the model of the config."""
        return AcmeConfig

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Return the webhooks; a request without its signature is refused."""
        signature = HmacSignature("$secret:ACME_HOOK", header="X-Signature")
        return [TriggerSpec("received", "hmac", Message, "A message came in.", signature)]

    @action(idempotent=True)
    def send(self, message: Message) -> Message:
        """Send a message that begins with the greeting."""
        text = f"{self.config['greeting']}, {message.name}! {message.text}"
        return message.model_copy(update={"text": text.strip()})

    def check(self) -> str:
        """Try the service: here one asks for the least that the actions need."""
        return "ready"
