"""Statements about critical points that interval arithmetic proves and a small independent program checks again."""
