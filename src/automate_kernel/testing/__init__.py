"""Contract suites and a clock to hold still, for authors of plugins and adapters."""
