"""Chips, topologies that need not be at hand, and what compiled programs cost on them."""
