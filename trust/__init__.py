"""The campaign that tries to break the book: `make trust`, or `python -m trust` from the project's root."""
