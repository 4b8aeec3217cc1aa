"""The server of LMVP: one process that owns a data folder and serves it over HTTP."""
