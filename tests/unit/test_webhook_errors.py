"""What a connector raises while it reads a webhook shows none of its secrets."""

import traceback

import pytest
from automate_kernel import AutomateError, Connector, ErrorCodes, Kernel, TriggerSpec

SECRET = "s3cr3t-of-the-hub"


@pytest.mark.parametrize("raised", [ValueError, "ours"])
def test_a_failing_parser_shows_no_secret(raised):
    """Neither in the error that a receiver answers with, nor in the traceback that it logs."""

    class Hub(Connector):
        key = "hub"

        @classmethod
        def triggers(cls):
            return [TriggerSpec("push")]

        def verify_webhook(self, headers, raw_body):
            return self.ctx.secrets.get("HUB") == SECRET

        def parse_webhook(self, trigger, headers, raw_body):
            text = f"can't read it with {self.ctx.secrets.get('HUB')}"
            if raised == "ours":
                raise AutomateError(ErrorCodes.INVALID_ARGUMENT, text)
            raise raised(text)

    kernel = Kernel(plugins=[Hub], secrets={"HUB": SECRET}, discover=False)
    with pytest.raises(AutomateError, match="can't read it with") as caught:
        kernel.receive_webhook("hub", "push", {}, b"{}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert kernel.outbox.find() == []
