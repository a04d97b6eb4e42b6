from automate_testing import ProviderContract

from automate_acme.provider import AcmeProvider


class TestAcmeProvider(ProviderContract):
    plugin_class = AcmeProvider
    example_inputs = {"add": {"numbers": [1.5, 2.5]}}
