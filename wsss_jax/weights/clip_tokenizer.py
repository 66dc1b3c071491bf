"""Turns texts into CLIP's tokens with Hugging Face's library ``tokenizers``.

The vocabulary is not part of this package. It is taken from the folder of the weights, where
Hugging Face's files have it, or from an installed OpenCLIP, which is not imported.
"""

import gzip
import html
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from wsss_jax.errors import UserError

_MERGES = 48_894
"""CLIP uses the first of the merges in OpenAI's file."""
_ARCHIVE = "bpe_simple_vocab_16e6.txt.gz"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""What is a word in OpenAI's program, after upper case became lower case."""
_START, _END = "<|startoftext|>", "<|endoftext|>"


class ClipTokenizer:
    """Gives the tokens that OpenAI's program gives a text."""

    def __init__(self, folder: Path | None = None) -> None:
        """Reads the vocabulary.

        Args:
          folder: a folder with ``tokenizer.json``, ``vocab.json`` and ``merges.txt``, or OpenAI's
            ``bpe_simple_vocab_16e6.txt.gz``. If it has none of them, the vocabulary of an installed
            OpenCLIP is read.

        Raises:
          UserError: there is no vocabulary, it is damaged, or a library is not installed.
        """
        self._fix_text = _library("ftfy").fix_text
        tokenizers, path = _library("tokenizers"), _vocabulary(folder)
        try:
            self._tokenizer = _read(tokenizers, path)
            self.start = int(self._tokenizer.token_to_id(_START))
            self.end = int(self._tokenizer.token_to_id(_END))
        except Exception as error:  # `tokenizers` raises plain exceptions
            raise UserError(
                f"expected CLIP's vocabulary in {path}, found something else ({error}): get it"
                " again"
            ) from error

    def __call__(self, texts: Sequence[str], context: int = 77) -> Int32[np.ndarray, "t n"]:
        """Returns the tokens of texts, with their start and end and zeros after them.

        Raises:
          UserError: a text has more than `context` tokens.
        """
        found = np.zeros((len(texts), context), np.int32)
        for row, text in enumerate(texts):
            cleaned = html.unescape(html.unescape(self._fix_text(text)))
            words = " ".join(cleaned.split()).lower()
            tokens = self._tokenizer.encode(words, add_special_tokens=False).ids
            tokens = [self.start, *tokens, self.end]
            if len(tokens) > context:
                raise UserError(
                    f"expected texts of at most {context} tokens, found {len(tokens)} in {text!r}:"
                    " shorten it"
                )
            found[row, : len(tokens)] = tokens
        return found


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"expected the library {name}, which CLIP's texts need, found none: pip install {name}"
        ) from error


def _vocabulary(folder: Path | None) -> Path:
    """Returns the file of the vocabulary; `vocab.json` stands for two files."""
    folders = [] if folder is None else [folder]
    package = importlib.util.find_spec("open_clip")
    if package is not None:
        folders += [Path(place) for place in package.submodule_search_locations or ()]
    for place in folders:
        for name in ("tokenizer.json", "vocab.json", _ARCHIVE):
            others = ("merges.txt",) if name == "vocab.json" else ()
            if all((place / one).is_file() for one in (name, *others)):
                return place / name
    beside = "" if folder is None else f" in {folder}"
    raise UserError(
        f"expected CLIP's vocabulary (tokenizer.json, or vocab.json and merges.txt){beside}, found"
        " none: put it beside the weights, or pip install --no-deps open_clip_torch, which has it"
    )


def _read(tokenizers: Any, path: Path) -> Any:
    """Returns the tokenizer with the vocabulary in a file."""
    if path.name == "tokenizer.json":
        return tokenizers.Tokenizer.from_file(str(path))
    if path.name == "vocab.json":
        model = tokenizers.models.BPE.from_file(
            str(path), str(path.with_name("merges.txt")), end_of_word_suffix="</w>"
        )
    else:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : _MERGES + 1]
        merges = [(first, second) for first, second in (line.split() for line in lines if line)]
        words = [*_bytes(), *(f"{byte}</w>" for byte in _bytes())]
        words += [*(first + second for first, second in merges), _START, _END]
        vocabulary = {word: number for number, word in enumerate(words)}
        model = tokenizers.models.BPE(vocabulary, merges, end_of_word_suffix="</w>")
    tokenizer = tokenizers.Tokenizer(model)
    split, byte_level = tokenizers.pre_tokenizers.Split, tokenizers.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            split(tokenizers.Regex(_WORDS), behavior="removed", invert=True),
            byte_level(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _bytes() -> list[str]:
    """Returns the characters that stand for bytes in the vocabulary, in its order.

    Visible characters of Latin-1 stand for themselves and come first; the other bytes follow as the
    characters from 256 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(256 + n) for n in range(256 - len(visible))]
