"""Chunks, frames, manifests: pure functions over bytes, no I/O."""
