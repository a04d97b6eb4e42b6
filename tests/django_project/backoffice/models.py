"""What the tests of the admin bases manage."""

from __future__ import annotations
