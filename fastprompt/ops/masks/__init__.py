"""Masks of an image's size, and their encodings."""
