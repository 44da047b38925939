"""Attention between prompts and images."""
