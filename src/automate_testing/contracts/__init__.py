"""Contract suites, which authors inherit to test a plugin, a store or a backend."""
