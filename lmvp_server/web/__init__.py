"""The web console: pages, sign-in, and the data and charts that pages show."""
