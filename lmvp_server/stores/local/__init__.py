"""Stores in a data folder: records on TinyDB, chunks as files, and series of points."""
