"""The former name of `wsss_jax.predict`, which still works."""

import sys

from wsss_jax.predict import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv))
