"""The evaluators that measure while a method trains, one file each; see `evaluators.base`."""
