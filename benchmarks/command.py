"""The look of the benchmarks' ``--help``."""

import argparse


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawTextHelpFormatter):
    pass


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser that shows `description` as it is, and every option's default."""
    return argparse.ArgumentParser(description=description, formatter_class=_Help)
