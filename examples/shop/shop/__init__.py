"""The shop: two stores, which never see each other's rows."""
