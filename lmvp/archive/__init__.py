"""Export, import and backup: data that leaves a server and can be loaded into one again."""
