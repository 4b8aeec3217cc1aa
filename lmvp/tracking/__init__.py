"""Runs: logging that never gets in the way, and reading what was logged. See docs/runs.md."""
