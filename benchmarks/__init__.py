"""
How fast the outbox is, beside its peers and beside hand-written SQL, measured in one run.

    uv run --group bench python -m benchmarks            # everything
    uv run --group bench python -m benchmarks --quick    # under three minutes
    uv run --group bench python -m benchmarks million    # a million items with memory watched
    uv run --group bench python -m benchmarks waiting    # what executions that wait cost
    uv run --group bench python -m benchmarks commits    # notices beside many commits
    uv run --group bench python -m benchmarks plugins    # the start with 100 plugins installed
    uv run --group plugins python -m benchmarks openapi  # the actions of GitHub's document
    uv run --group bench python -m benchmarks redaction  # a text without its secrets
    uv run --group bench python -m benchmarks report     # tables and picture for the documentation

Each contender is one module of `benchmarks.contenders` and runs in processes and, for a peer, in a
virtual environment of its own. What is measured is in `benchmarks.measures`.
"""
