"""Chunks, frames, codecs and manifests: pure functions over bytes, without I/O. See docs/format.md."""
