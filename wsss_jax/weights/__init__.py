"""Weights of networks: our own files and those of other programs."""
