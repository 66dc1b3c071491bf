"""Data sets, their files and labels, augmentation and batches."""
