"""Pictures of maps and masks."""
