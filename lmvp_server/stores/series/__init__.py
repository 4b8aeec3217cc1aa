"""The points of runs, in folders: a write-ahead log of each, and segments of compressed columns. See docs/format.md."""
