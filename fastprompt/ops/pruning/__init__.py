"""Fewer tokens: scores, selection, merging."""
