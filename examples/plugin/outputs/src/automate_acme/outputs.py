"""The output store of Acme Inc."""

from automate_kernel import FileOutputStore


class AcmeOutputStore(FileOutputStore):
    """Large outputs in a folder, until you keep them elsewhere."""
