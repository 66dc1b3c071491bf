"""Networks: pure functions of their variables."""
