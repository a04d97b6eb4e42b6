from automate_testing import FilterContract

from automate_acme.filters import acme


class TestAcme(FilterContract):
    filter = staticmethod(acme)
    examples = {"{{ 'Ada Lovelace' | acme }}": "AL"}
