"""Masked means, similarities and what is conditioned on them."""
