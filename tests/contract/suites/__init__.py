"""Contract suites of what only this repository implements: storages, and executions on them."""
