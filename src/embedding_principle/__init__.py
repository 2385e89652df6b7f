"""The mathematics of embedding: networks, risks, critical points and the maps between their landscapes."""
