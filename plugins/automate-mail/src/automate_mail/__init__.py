"""Mail for automate-kernel: SMTP and IMAP."""

from automate_mail.config import MailConfig
from automate_mail.connector import MailConnector

__all__ = ["MailConfig", "MailConnector"]
