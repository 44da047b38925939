"""The click simulator."""
