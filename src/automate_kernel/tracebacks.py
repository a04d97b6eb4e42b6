from automate_kernel.secrets.tracebacks import *  # noqa: D100, F403
