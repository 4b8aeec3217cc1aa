"""How records look: as plain text, as static HTML and SVG, and as the data of a widget. Pure functions, no I/O."""
