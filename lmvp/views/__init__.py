"""Result types that users get from calls. Each has the data, and converts itself to text, HTML and SVG."""
