"""Leaving and coming back: models as plain files, and backups of a whole server."""
