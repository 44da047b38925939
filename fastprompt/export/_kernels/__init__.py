"""Kernels that an engine carries: PTX, and the plan of their launches."""
