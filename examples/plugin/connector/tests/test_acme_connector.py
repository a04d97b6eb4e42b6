from automate_testing import ConnectorContract

from automate_acme.connector import AcmeConnector


class TestAcmeConnector(ConnectorContract):
    plugin_class = AcmeConnector
    example_inputs = {"send": {"name": "Ada"}}
