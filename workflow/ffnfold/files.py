"""What lies on disk, told without torch: atomic writing, sha256, safetensors headers, sound checkpoint folders."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ffnfold.architecture import FAMILIES, SHARED_SUFFIX
from ffnfold.errors import InputError

WEIGHTS, INDEX, CONFIG, MANIFEST = "model.safetensors", "model.safetensors.index.json", "config.json", "manifest.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
SUPPORTED = frozenset(FAMILIES)
BUILD_NOTES = "build.json"  # beside a built checkpoint: its options and which zeros are held
_CONVERT = (
    "convert it once, where you trust its origin: load it with transformers and `save_pretrained(folder)`, "
    "then name that folder as the source"
)


def training_folder(output: str | Path) -> Path:
    """Where the training behind an output file keeps its state until that file is written."""
    return Path(output).with_suffix(".training")


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_sha256(paths: Iterable[str | Path], cache: str | Path) -> dict[str, str]:
    """The sha256 of each file; one whose size and time are as before is not read again.

    Args:
        paths: files that exist.
        cache: JSON file that remembers; written where something new was read.
    """
    try:
        known = json.loads(Path(cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found, news = {}, False
    for path in map(str, paths):
        status = os.stat(path)
        key = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        entry = known.get(os.path.abspath(path))
        if entry is None or entry[:-1] != key:
            entry, news = [*key, sha256_file(path)], True
            known[os.path.abspath(path)] = entry
        found[path] = entry[-1]
    if news:
        with contextlib.suppress(OSError):  # written by several runs at once, or a full disk: it only saves time
            write_json(cache, known)
    return found


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes the name, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a job that was killed; a file has one writer
        left.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write bytes so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, a final newline; NaN and infinity are refused (ValueError)."""
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError("a file is missing", where=str(path), remedy="check the folder that holds it") from None
    except ValueError as error:
        raise InputError("a file is not valid JSON", where=str(path), got=error, remedy="write it again") from None


def load_config(directory: str | Path) -> dict[str, Any]:
    """Content of a checkpoint's config.json.

    Raises:
        InputError: it is missing, not JSON, or not a mapping.
    """
    path = Path(directory) / CONFIG
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError("config.json is not a mapping", where=str(path), got=type(config).__name__)
    return config


def weight_files(directory: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several by its index.

    Raises:
        InputError: there are none; names what lies there instead.
    """
    directory = Path(directory)
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        shards = sorted(set(read_json(directory / INDEX)["weight_map"].values()))
        missing = [name for name in shards if Path(name).name != name or not (directory / name).is_file()]
        if missing:
            raise InputError("a shard of the checkpoint is missing", where=str(directory / INDEX), got=missing[0])
        return [directory / name for name in shards]
    others = sorted(path.name for path in directory.glob("*") if path.suffix in (".bin", ".pt", ".h5", ".msgpack"))
    raise not_safetensors(str(directory), others)


def not_safetensors(where: str, others: list[str]) -> InputError:
    return InputError(
        "the checkpoint is not safetensors; pickled weights are never loaded",
        where=where,
        got=", ".join(others) or "no weights",
        expected=f"{WEIGHTS}, or its shards and {INDEX}",
        remedy=_CONVERT if others else "name a folder that holds a checkpoint",
    )


def read_header(path: str | Path) -> dict[str, dict[str, Any]]:
    """Names, types, shapes and offsets of a safetensors file, its length checked; no tensor is read.

    Returns:
        name → {"dtype": str, "shape": list of int, "data_offsets": [begin, end] in bytes}.

    Raises:
        InputError: the file is shorter or longer than its header says, or has no such header.

    Source: the safetensors format, https://github.com/huggingface/safetensors#format.
    """
    path = Path(path)
    size = path.stat().st_size
    remedy = "fetch or copy the file again"
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if len(start) < 8 or length > 100_000_000:
            expected = "an 8-byte header length, then JSON"
            raise InputError("not a safetensors file", where=str(path), got=f"{size} bytes", expected=expected)
        text = stream.read(length)
    if len(text) < length:
        raise InputError(
            "the safetensors file is truncated",
            where=str(path),
            got=f"{size} bytes",
            expected=f"a header of {length} bytes",
            remedy=remedy,
        )
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("not a safetensors file", where=str(path), got=f"header: {error}", remedy=remedy) from None
    expected_size = 8 + length + (max(end for _, end, _ in ends) if ends else 0)
    if size != expected_size:
        raise InputError(
            "the safetensors file is truncated" if size < expected_size else "the safetensors file is too long",
            where=str(path),
            got=f"{size} bytes",
            expected=f"{expected_size} bytes, by its header (last tensor: {ends[-1][2] if ends else 'none'})",
            remedy=remedy,
        )
    return header


def tokenizer_length(directory: str | Path) -> int:
    """Number of entries of a tokenizer, special tokens included, read from its files.

    Raises:
        InputError: no tokenizer files, or an empty tokenizer.
    """
    directory = Path(directory)
    try:
        if (directory / "tokenizer.json").is_file():
            content = read_json(directory / "tokenizer.json")
            vocabulary = content["model"]["vocab"]
            names = set(vocabulary) if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
            names |= {entry["content"] for entry in content.get("added_tokens", ())}
        elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            names = set(read_json(directory / "vocab.json"))
            extra = directory / "added_tokens.json"
            names |= set(read_json(extra)) if extra.is_file() else set()
        else:
            raise InputError(
                "the tokenizer's files are missing",
                where=str(directory),
                expected="tokenizer.json, or vocab.json and merges.txt",
                remedy="copy the tokenizer of the checkpoint into this folder",
            )
    except (KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError("the tokenizer's files cannot be read", where=str(directory), got=got) from None
    if not names:
        raise InputError("the tokenizer is empty", where=str(directory), expected="at least one entry")
    return len(names)


def check_vocabulary(length: int, vocab_size: int, where: str) -> None:
    """Refuse a tokenizer that is not the one of a checkpoint with `vocab_size` embedding rows.

    A few rows more than entries are padding (2% or 128 rows, whichever is more); a row less is never right.

    Raises:
        InputError: the tokenizer is empty, longer than the embedding, or far shorter.
    """
    padding = max(128, vocab_size // 50)
    if not 0 < length <= vocab_size or vocab_size - length > padding:
        raise InputError(
            "the checkpoint has another vocabulary than its tokenizer",
            where=where,
            got=f"a tokenizer of {length} entries",
            expected=f"as many as the embedding has rows: {vocab_size} (at most {padding} fewer)",
            remedy="put the checkpoint and the tokenizer it was trained with side by side",
        )


def check_config(config: dict[str, Any], supported: Collection[str], where: str) -> None:
    """Refuse a configuration of an unknown architecture or without a vocabulary size.

    Raises:
        InputError: names the model type found and those supported.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in supported:
        shared = str(model_type).endswith(SHARED_SUFFIX)
        raise InputError(
            "the checkpoint is of another architecture",
            where=f"{where}: model_type",
            got=repr(model_type),
            expected=" or ".join(sorted(supported)),
            remedy="expand it first: python -m ffnfold.expand CHECKPOINT FOLDER, then name that folder"
            if shared
            else "name a GPT-2 or GPT-NeoX (Pythia) checkpoint",
        )
    vocab_size = config.get("vocab_size", 50257)
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise InputError(
            "the configuration is wrong", where=f"{where}: vocab_size", got=vocab_size, expected="1 or more"
        )


def inspect_local(
    source: str | Path,
    supported: Collection[str] = SUPPORTED,
    tokenizer_source: str | Path | None = None,
) -> dict[str, Any]:
    """Check a checkpoint folder in milliseconds, before any job runs and without torch.

    Args:
        source: checkpoint folder.
        supported: model types that can be read.
        tokenizer_source: folder of the tokenizer; None for the checkpoint's own.

    Returns:
        The content of config.json.

    Raises:
        InputError: folder missing, another architecture, not safetensors, truncated, or another vocabulary.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(
            "the checkpoint folder does not exist",
            where=str(source),
            expected="a folder with config.json, model.safetensors and the tokenizer, or a hub id `owner/name`",
            remedy="correct the `source` key",
        )
    config = load_config(source)
    check_config(config, supported, str(source / CONFIG))
    for path in weight_files(source):
        read_header(path)
    tokenizer = source if tokenizer_source is None else Path(tokenizer_source)
    check_vocabulary(tokenizer_length(tokenizer), config.get("vocab_size", 50257), str(tokenizer))
    return config
