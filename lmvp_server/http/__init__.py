"""The HTTP server below the handlers: connections, limits, queues and compression."""
