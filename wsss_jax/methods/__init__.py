"""Training methods: one file each, see `methods.base`."""
