from automate_kernel.secrets.logs import *  # noqa: D100, F403
