"""Leads ``python -m wsss_jax.weights`` to the command line, `wsss_jax.weights_command`."""

import sys

from wsss_jax.weights_command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
