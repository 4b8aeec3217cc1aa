"""Runs: logging of metrics to a local journal, delivery to the server, and reading. See docs/runs.md."""
