"""Reads and writes the weights of networks, in our own files and in those of other programs."""
