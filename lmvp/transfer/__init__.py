"""Push and pull of versions: describe, negotiate, stream, verify, resume."""
