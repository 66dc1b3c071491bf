"""All kinds of files that the program reads."""

from tests.hostile import of_images, of_labels, of_maps, of_runs, of_sources, of_weights

_ROOMS = (of_images, of_labels, of_maps, of_sources, of_runs, of_weights)
KINDS = {kind.name: kind for room in _ROOMS for kind in room.KINDS}
"""Kinds by name."""
