"""Version of the HTTP API, and the headers that both sides know."""

from __future__ import annotations

API = 1
API_HEADER = "LMVP-API"
INCOMPLETE_HEADER = "LMVP-Incomplete"
"""Header with the reason for missing data in a response, for example a damaged file of the server."""
