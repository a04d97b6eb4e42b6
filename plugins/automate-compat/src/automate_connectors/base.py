"""The base of all connectors."""

from automate_kernel import ActionSpec as ActionSpec
from automate_kernel import AutomateError as AutomateError
from automate_kernel import Connector as Connector
from automate_kernel import ConnectorContext as ConnectorContext
from automate_kernel import ErrorCodes as ErrorCodes
from automate_kernel import TriggerSpec as TriggerSpec
from automate_kernel import action as action
