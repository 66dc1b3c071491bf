"""What a finished run looks like: reads the stages' folders, draws one page and one picture."""
