"""The engine: threads, the event loop and the committer that move executions."""
