"""Pipeline stages: one file each, exporting `run`, and what `wsss_jax.needs` tells of."""
