"""Series store in folders: each run has a write-ahead log and segments of compressed columns. See docs/format.md."""
