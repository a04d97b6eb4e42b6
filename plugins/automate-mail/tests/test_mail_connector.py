from automate_kernel.testing import ConnectorContract

from automate_mail.connector import MailConnector


class TestMailConnector(ConnectorContract):
    plugin_class = MailConnector
    example_inputs = {"send": {"name": "Ada"}}
