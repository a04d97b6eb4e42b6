"""The base of all providers."""

from automate_kernel import AutomateError as AutomateError
from automate_kernel import BaseProvider as BaseProvider
from automate_kernel import CapabilitySpec as CapabilitySpec
from automate_kernel import ErrorCodes as ErrorCodes
from automate_kernel import ProviderContext as ProviderContext
from automate_kernel import ProviderRegistry as ProviderRegistry
from automate_kernel import capability as capability
