"""The stages of a recipe: their order, their records, and running them."""
