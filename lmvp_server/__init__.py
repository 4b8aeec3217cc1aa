"""The backend: one process that owns a data folder."""
