"""LMVP's HTTP API: handlers that call the services, one module per noun, without rules of their own."""
