"""Pipeline stages: one file each, exporting `run`, and what `wsss_jax.stages.base` tells of."""

SHARED = ("base", "crf_work", "per_image", "references")
"""Modules of this package that are no stages."""
