"""Weakly supervised semantic segmentation in JAX: image-level labels in, pixel masks out."""

__version__ = "0.2.0"
