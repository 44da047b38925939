"""Reads from a memory of many keys and values."""
