"""``automate connect``: connect a plugin to a person's account."""

from __future__ import annotations

from automate_cli.command import Commands, Context
from automate_cli.command_input import duration_input
from automate_cli.inputs import argument, flag, option

app: Commands = Commands()


@app.called(
    "automate connect crm",
    "automate connect crm --tenant acme   # for the calls of this tenant",
    "automate connect crm --port 8400   # where the service knows one redirect URI only",
)
def connect(
    context: Context,
    key: str = argument("The plugin's key."),
    port: int = option(0, "The port of 127.0.0.1 for the answer; 0 is any.", min=0, max=65_535),
    tenant: str | None = option(None, "The tenant whose account it is; else the application's."),
    by: str | None = option(None, "Your name, for those who have to connect it again."),
    wait: str = option("5m", "Wait so long for the answer.", metavar="DURATION"),
    no_browser: bool = flag("--no-browser", "Only print the page's address."),
) -> None:
    """
    Connect a plugin to an account at its service, in a browser, and store the tokens.

    They go to the first secrets backend that can be written to. The secret of the client is looked
    for before anybody is asked.
    """
    # Here, as they bring a server along, and other commands start without it.
    import getpass
    import webbrowser

    from automate_cli.loopback import LoopbackReceiver
    from automate_kernel.operations.account import require_client
    from automate_kernel.outbox.item import check_text

    if tenant is not None:
        check_text(tenant, "tenant_id")
    kernel = context.session.in_memory(workflows=False)
    is_provider = key in kernel.plugins.providers and key not in kernel.plugins.connectors
    account = kernel.accounts.find("provider" if is_provider else "connector", key, tenant)
    require_client(account, kernel.secrets)  # better now than after a person's work
    receiver = LoopbackReceiver(port)
    try:
        consent = account.begin(receiver.redirect_uri)
        receiver.expect(consent.state)
        context.out.note(f"Open this page, and allow the access:\n{consent.url}")
        if not no_browser:
            webbrowser.open(consent.url)
        answer = receiver.wait(duration_input(wait, "--wait"))
    finally:
        receiver.close()
    account.finish(consent, answer, kernel.secrets, by=by or getpass.getuser())
    context.out.data({"connected": key, "tenant": tenant, "secret": account.key})
    whose = f"{key} of the tenant {tenant}" if tenant is not None else key
    context.out.line(f"{whose} is connected. Its tokens are in the secret {account.key}.")
