"""The one exception type for mistakes a user can mend."""


class UserError(Exception):
    """A mistake in the input: one line saying what was expected, what was found, what to do.

    ``wsss_jax.main`` and the other command-line programs print the message without a traceback
    and exit with status 2. Everything else is a defect of the program and keeps its traceback.
    """
