"""Training a byte-level BPE tokenizer on a study's own text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ffnfold import hub
from ffnfold.checkpoints import load_tokenizer
from ffnfold.errors import InputError

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, positions: int, directory: Path) -> int:
    """Train a byte-level BPE in GPT-2's manner and save it for `AutoTokenizer.from_pretrained(directory)`.

    Args:
        texts: training rows.
        vocabulary_size: entries wanted, `<|endoftext|>` and the 256 bytes among them; short texts may give fewer.
        positions: longest input of the model (tokens).
        directory: where tokenizer.json and tokenizer_config.json go.

    Returns:
        The number of entries.

    Raises:
        InputError: there is no text.

    Source: Sennrich et al. 2016 (arXiv 1508.07909); bytes as Radford et al. 2019, section 2.2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2TokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rows = [text for text in texts if text]
    if not rows:
        raise InputError("there is no text to train a tokenizer on", where="data, training split", got="0 rows")
    tokenizer.train_from_iterator(rows, trainer)
    fast = GPT2TokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=positions,
    )
    fast.save_pretrained(directory)
    return len(fast)


def fetch_tokenizer(source: str, revision: str | None, directory: Path) -> None:
    """Take in a tokenizer from the hub or a folder.

    Raises:
        InputError: it is not there, is empty, or has no end-of-text token.
    """
    folder = hub.download_checkpoint(source, revision, weights=False) if hub.is_hub_id(source) else Path(source)
    load_tokenizer(folder).save_pretrained(directory)
