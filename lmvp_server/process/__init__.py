"""Parts of the server process besides its requests: log, memory and background work."""
