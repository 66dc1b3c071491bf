"""Slow, obvious versions of what the package computes, and readers of golden values."""
