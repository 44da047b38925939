"""Engines of TensorRT: profiles, plugins, and the build."""
