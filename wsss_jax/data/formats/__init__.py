"""Readers and writers of the files that stages and other programs exchange."""
