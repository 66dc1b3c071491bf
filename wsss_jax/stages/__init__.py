"""Pipeline stages: one file each, exporting `run`."""
