"""What is measured while a method trains: one file each, see `evaluators.base`."""
