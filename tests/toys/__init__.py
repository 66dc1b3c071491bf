"""Small data, runs and networks that tests are made of."""
