"""Networks: pure functions of their variables. A backbone is one file, see `models.base`."""
