"""How a chapter becomes a checked, rendered page."""
