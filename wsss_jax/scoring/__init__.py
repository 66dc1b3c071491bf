"""Scores predictions against ground truth."""
