"""Trained networks applied to images: multi-scale maps, random walks, masks."""
