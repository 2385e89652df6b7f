"""The cone of admissible neurons, whose Gaussian measure says how large the lifted manifold is."""
