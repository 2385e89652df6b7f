"""Embedding in depth: liftings of a network to deeper ones (Bai et al., arXiv:2205.13283)."""
