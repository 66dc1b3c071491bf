"""Makes data sets of the form that recipes read from folders, exports and official archives."""
