"""Runs as text and as static HTML."""
