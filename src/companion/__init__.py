"""How a chapter of the book becomes a checked, rendered page."""
