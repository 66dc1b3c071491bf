"""The data sets, one module each; `wsss_jax.data.sets.base` states their contract."""
