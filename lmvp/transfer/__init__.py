"""Push and pull: describe, negotiate, stream, verify, resume."""
