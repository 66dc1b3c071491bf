"""A vocabulary like CLIP's with six merges: 520 tokens."""

import gzip
import json
from pathlib import Path

MERGES = ("c a", "ca t</w>", "p h", "ph o", "o f</w>", "pho t")
VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [chr(b) for b in VISIBLE] + [chr(256 + n) for n in range(256 - len(VISIBLE))]
WORDS = [
    *BYTES,
    *(f"{byte}</w>" for byte in BYTES),
    *(merge.replace(" ", "") for merge in MERGES),
    "<|startoftext|>",
    "<|endoftext|>",
]


def write_archive(folder: Path) -> None:
    """OpenAI's form, whose first line is a comment."""
    text = "\n".join(["#version: toy", *MERGES, ""])
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))


def write_files(folder: Path) -> None:
    """Hugging Face's form of two files."""
    numbers = {word: number for number, word in enumerate(WORDS)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
