"""The embedded model's tokenizer: CLIP's own kind, with a merge list in which every word of the world is a token."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def build(words: Iterable[str], length: int = 24) -> CLIPTokenizer:
    """A CLIP tokenizer for `words`; any other word falls apart into smaller tokens, at the least its bytes.

    Args:
        words: lower-case words, each of which becomes one token.
        length: tokens of a prompt, with begin and end (77 in Stable Diffusion; the world's captions are short).
    """
    words = sorted(set(words))
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(
        [" ".join(words)],
        trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False),
    )
    bpe = json.loads(trained.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *sorted(bpe["vocab"], key=bpe["vocab"].get)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    for special in (BOS, EOS):
        vocab[special] = len(vocab)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in bpe["merges"]], model_max_length=length)
    split = [word for word in words if len(tokenizer(word).input_ids) != 3]
    assert not split, f"these words are not whole tokens: {split}"
    return tokenizer
