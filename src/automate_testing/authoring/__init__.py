"""The tools of plugin authors: a new plugin, its check, its manifest, its page."""
