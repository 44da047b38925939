"""Layers of image encoders."""
