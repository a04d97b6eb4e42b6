"""
Secrets backends for automate-kernel that need no server.

`automate_secrets.keyring_backend` reads the operating system's keyring, `automate_secrets.sops`
files encrypted with SOPS, and `automate_secrets.table` an encrypted table. Each needs its own
extra, so none is imported here.
"""

from __future__ import annotations
