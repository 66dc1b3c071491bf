"""What runs on the host alone, with NumPy; never imports JAX."""
