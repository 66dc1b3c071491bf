"""Recipes run side by side, and the page that compares them."""
