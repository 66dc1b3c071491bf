"""Data sets, one module each; see `wsss_jax.data.sets.base`."""
