"""Formats, schemas and pure functions that the client and the server share. See docs/format.md."""
