"""What the tests of the API bases serve."""

from __future__ import annotations
