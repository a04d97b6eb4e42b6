"""Access in rows: roles, tokens, sessions, saved queries and the audit trail."""
