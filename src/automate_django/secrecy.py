"""Names that secrets go by, so that what stands under one is shown to nobody."""

from __future__ import annotations

from automate_kernel.secrets.masking import HIDDEN, is_secret_name, words_of
from automate_kernel.secrets.masking import hide_named as without_secrets

__all__ = ["HIDDEN", "is_secret_name", "without_secrets", "words_of"]
