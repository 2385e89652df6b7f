"""Training of many networks at once, and the plateaus that they meet."""
