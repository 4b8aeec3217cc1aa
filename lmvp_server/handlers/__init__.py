"""HTTP to services, one module per noun; no rules in here."""
