"""The stages of a pipeline, one file each with one subclass of `wsss_jax.stages.base.Stage`."""
