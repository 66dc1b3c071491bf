"""Applies trained networks to images: maps over scales and flips, and random walks."""
