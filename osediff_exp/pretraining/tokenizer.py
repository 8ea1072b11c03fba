"""A small CLIP tokenizer: byte-level BPE trained on the words that the prompts and captions of a small prior use."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from osediff_exp.models.prompt_cache.fingerprints import digest
from osediff_exp.models.prompts import split_prompt
from osediff_exp.whole_files import whole_file

_KEY = "made_from.txt"
_START, _END, _SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_tokenizer(folder: Path, *, prompts: list[str], content_words: list[str], vocab_size: int, max_length: int) -> CLIPTokenizer:
    """Train the tokenizer, write its ``vocab.json`` and ``merges.txt`` to ``folder`` and return it.

    Any text can be tokenised (all 256 bytes are in the vocabulary); words of the prompts become one token each first, then frequent
    content words, up to ``vocab_size`` entries including the two special tokens. A folder that holds this very tokenizer is read as it is.
    """
    made_from = _key(prompts, content_words, vocab_size, max_length)
    if holds_tokenizer(folder, prompts=prompts, content_words=content_words, vocab_size=vocab_size, max_length=max_length):
        return CLIPTokenizer.from_pretrained(folder)
    # The prompts' words are repeated so that their merges come before any content word's.
    words = [word for prompt in prompts for term in split_prompt(prompt) for word in term.lower().split()] * 100 + content_words
    bpe = Tokenizer(models.BPE(end_of_word_suffix=_SUFFIX, fuse_unk=False))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2 - len(alphabet),
        min_frequency=1,
        end_of_word_suffix=_SUFFIX,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(words), ","], trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    symbols = sorted(alphabet)
    vocabulary = [*symbols, *(symbol + _SUFFIX for symbol in symbols), *("".join(merge) for merge in merges)]
    vocabulary = [*dict.fromkeys(vocabulary), _START, _END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(vocabulary)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length}
    settings |= {"bos_token": _START, "eos_token": _END, "pad_token": _END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    with whole_file(folder / _KEY) as temporary:  # the last one: the folder is whole
        temporary.write_text(made_from)
    return CLIPTokenizer.from_pretrained(folder)


def holds_tokenizer(folder: Path, *, prompts: list[str], content_words: list[str], vocab_size: int, max_length: int) -> bool:
    """Tell whether :func:`train_tokenizer` has filled the folder, from these very words."""
    key = folder / _KEY
    return key.is_file() and key.read_text() == _key(prompts, content_words, vocab_size, max_length)


def _key(prompts: list[str], content_words: list[str], vocab_size: int, max_length: int) -> str:
    return digest(json.dumps([prompts, content_words, vocab_size, max_length]))
