"""Stores of the server: interfaces in `base`, and their implementations in a data folder."""
