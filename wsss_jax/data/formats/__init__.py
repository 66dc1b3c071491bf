"""Files that stages and other programs exchange."""
