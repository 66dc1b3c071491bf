"""Code that runs on the host alone, with NumPy; no module here imports JAX."""
