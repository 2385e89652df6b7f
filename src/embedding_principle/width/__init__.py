"""Embedding in width: wider networks that keep critical points (Zhang et al., arXiv:2105.14573, and others)."""
