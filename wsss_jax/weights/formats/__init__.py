"""Readers of checkpoint files, one for each format; none of them runs anything.

Each module has a function ``read(path) -> Content``. Whatever exception it raises, the file is
damaged, hostile or of another kind; `wsss_jax.weights.checkpoint` puts that in one line.
"""
