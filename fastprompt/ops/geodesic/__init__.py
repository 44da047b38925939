"""Geodesic and Euclidean distances."""
