"""The registration of template filters."""

from automate_kernel import register_filter as register_filter
