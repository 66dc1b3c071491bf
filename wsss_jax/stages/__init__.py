"""Pipeline stages: one file each, with one class derived from `wsss_jax.stages.base.Stage`."""
