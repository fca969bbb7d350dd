"""The three tasks' data: a hub id, local files or the embedded corpus in one layout, with counts and fingerprints."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnfold import hub
from ffnfold.errors import InputError
from ffnfold.files import sha256_file, write_atomic, write_json
from ffnfold.readers import SUFFIXES, Rows, check_file, read_rows
from ffnfold.splits import INFO

SPLITS = ("train", "validation", "test")
COLUMNS = {
    "language_modeling": ("text",),
    "sentiment": ("text", "label"),
    "summarization": ("article", "highlights"),
}
STORED = {
    "language_modeling": ("text",),
    "sentiment": ("id", "text", "label"),
    "summarization": ("id", "article", "highlights"),
}
LABELS = {0: 0, 1: 1, "0": 0, "1": 1, "negative": 0, "positive": 1, "neg": 0, "pos": 1}
LABEL_NAMES = ["negative", "positive"]


def prepare_task(task: str, spec: Mapping[str, Any], directory: str | Path, seed: int) -> None:
    """Write a task's three splits as Parquet and `dataset_info.json`; the same input gives the same bytes.

    Rows: `spec["rows"][split]` rows of a source at most. For sentiment (every split) and summarization's train they are
    drawn without replacement in an order that the seed gives, since published files are sorted by class or by outlet;
    language modelling and summarization's other splits keep the first rows in their order.

    Args:
        task: language_modeling, sentiment or summarization.
        spec: the study's entry: `source` ("embedded", a hub id, a folder with {split}.{suffix}, or split → file, list
            of files or pattern), `subset`, `revision`, `columns`, `labels`, `join`, `rows`, `licence`. Relative paths
            start at the working directory. The embedded corpus brings its own `join`.
        directory: folder to write.
        seed: of the selection and of the embedded corpus.

    Raises:
        InputError: names the file or repository, the line and the column at fault.
    """
    directory = Path(directory)
    join = spec.get("join") or "\n"
    bounds: dict[str, Any] = {}
    if spec["source"] == "embedded":
        tables, bounds, join = _embedded(task, spec, seed)
    else:
        sources = _open_sources(task, spec)
        tables = {split: _canonical(task, spec, split, sources.get(split), seed) for split in SPLITS}
    for split in SPLITS:
        if not tables[split][STORED[task][-1]] and (split != "validation" or task == "language_modeling"):
            raise InputError(
                "a split has no rows",
                where=f"{task}: {split}",
                got=f"source {_name_of(spec['source'], split)}",
                expected="at least one row",
                remedy=f"name a source with a {split} split, and give `rows` of at least 1",
            )
    directory.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {
        "task": task,
        "source": spec["source"],
        "revision": spec.get("revision"),
        "licence": spec.get("licence") or "unknown",
        "join": join,
        "splits": {},
        "fingerprint": _fingerprint(task, tables, join),
        "bounds": bounds,
    }
    if task == "sentiment":
        info["label_names"] = LABEL_NAMES
    for split in SPLITS:
        path = directory / f"{split}.parquet"
        write_atomic(path, _parquet_bytes(task, tables[split]))
        body = tables[split]["article" if task == "summarization" else "text"]
        joined = join.join(body)
        info["splits"][split] = {
            "rows": len(body),
            "bytes": len(joined.encode()),
            "words": len(joined.split()),
            "sha256": sha256_file(path),
        }
    write_json(directory / INFO, info)


def check_local_files(task: str, spec: Mapping[str, Any]) -> None:
    """Check a task's local files in milliseconds, before any job runs; hub ids and the embedded corpus pass.

    Raises:
        InputError: a file is missing, empty, of an unknown kind, or its first row lacks a column.
    """
    if spec["source"] == "embedded" or hub.is_hub_id(spec["source"]):
        return
    files = local_files(spec["source"])
    for split in ("train", "test", *(("validation",) if task == "language_modeling" else ())):
        if split not in files:
            raise InputError(
                "a split has no file",
                where=f"{task}: {split}",
                got=f"files for {', '.join(files) or 'no split'}",
                remedy=f"add {split} to `source`",
            )
    for paths in files.values():
        for path in paths:
            check_file(path, [_column(spec, name) for name in COLUMNS[task]])


def local_files(source: str | Mapping[str, Any]) -> dict[str, list[Path]]:
    """The files of each split: as the study names them, or {split}.{suffix} in a folder.

    Raises:
        InputError: an unknown split, a pattern that fits no file, or neither a folder nor a hub id.
    """
    if isinstance(source, str):
        folder = Path(source)
        if not folder.is_dir():
            raise InputError(
                "the data source does not exist",
                where=source,
                expected="a folder with train, validation and test files, a hub id `owner/name`, or split → file",
                remedy="correct the `source` key",
            )
        source = {split: [p for s in SUFFIXES if (p := folder / f"{split}{s}").is_file()][:1] for split in SPLITS}
    files: dict[str, list[Path]] = {}
    for split, value in source.items():
        if split not in SPLITS:
            raise InputError("an unknown split", where=f"source: {split}", expected=", ".join(SPLITS))
        names = [value] if isinstance(value, str | Path) else list(value or ())
        paths = [path for name in names for path in _expand(str(name))]
        if paths:
            files[split] = paths
    return files


def _expand(name: str) -> list[Path]:
    """A path as it is, or the files that fit a pattern, in alphabetical order."""
    path = Path(name)
    if path.exists() or not any(sign in name for sign in "*?["):
        return [path]
    anchor = Path(path.anchor)
    found = sorted(anchor.glob(str(path.relative_to(anchor))))
    if not found:
        raise InputError("no file fits the pattern", where=name, remedy="correct the `source` key")
    return found


def _name_of(source: Any, split: str) -> str:
    return str(source.get(split, "names no such split")) if isinstance(source, Mapping) else str(source)


def _column(spec: Mapping[str, Any], name: str) -> str:
    """The source's name of a column."""
    return (spec.get("columns") or {}).get(name) or name


class _HubRows:
    """A hub split with the reading methods of `Rows`: only the selected rows come into memory."""

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.name = table, name

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str, indices: Sequence[int] | None = None) -> list[Any]:
        if name not in self.table.column_names:
            raise InputError(
                "a column is missing",
                where=self.name,
                got=f"columns: {', '.join(self.table.column_names)}",
                expected=f"a column {name!r}",
                remedy="correct the `columns` key",
            )
        table = self.table.select_columns([name])
        return list((table if indices is None else table.select(indices))[name])

    def has(self, name: str) -> bool:
        return name in self.table.column_names

    def place(self, index: int) -> str:
        return f"{self.name}, row {index}"


def _open_sources(task: str, spec: Mapping[str, Any]) -> dict[str, Rows | _HubRows]:
    """Open the source's splits: the hub's lazily, local files read whole."""
    source = spec["source"]
    if hub.is_hub_id(source):
        found = hub.load_hub_dataset(source, spec.get("subset"), spec.get("revision"))
        return {split: _HubRows(found[split], f"{source}, split {split}") for split in SPLITS if split in found}
    required = [_column(spec, name) for name in COLUMNS[task]]
    optional = [_column(spec, "id")] if "id" in STORED[task] else []
    return {split: read_rows(paths, required, optional) for split, paths in local_files(source).items()}


def _canonical(
    task: str, spec: Mapping[str, Any], split: str, rows: Rows | _HubRows | None, seed: int
) -> dict[str, list[Any]]:
    """The stored columns of one split; all empty without rows."""
    if rows is None:
        return {name: [] for name in STORED[task]}
    indices = list(range(len(rows)))
    if task == "sentiment" or (task, split) == ("summarization", "train"):
        random.Random(f"{seed}/{task}/{split}").shuffle(indices)
    limit = (spec.get("rows") or {}).get(split)
    indices = indices if limit is None else indices[:limit]
    table: dict[str, list[Any]] = {}
    if "id" in STORED[task]:
        table["id"] = _identifiers(rows, _column(spec, "id"), split, indices)
    for name in COLUMNS[task]:
        source_name = _column(spec, name)
        if name == "label":
            labels = _map_labels(rows, source_name, spec.get("labels"))
            table[name] = [labels[index] for index in indices]
        else:
            table[name] = _texts(rows, source_name, indices)
    return table


def _texts(rows: Rows | _HubRows, name: str, indices: Sequence[int]) -> list[str]:
    values = rows.column(name, indices)
    for index, value in zip(indices, values, strict=True):
        if not isinstance(value, str) or (not value.isascii() and _has_surrogates(value)):
            raise InputError(
                "a text column holds something else",
                where=f"{rows.place(index)}, column {name!r}",
                got=repr(value)[:60],
                expected="text that UTF-8 can hold",
                remedy="correct the row, or the `columns` key",
            )
    return values


def _has_surrogates(text: str) -> bool:
    """Whether a text holds half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _map_labels(rows: Rows | _HubRows, name: str, labels: Any) -> list[int]:
    """Raw labels as 0 and 1, every row checked; a list of raw values stands for 0, 1 in that order."""
    if not labels:
        allowed = dict(LABELS)
    elif isinstance(labels, Mapping):
        allowed = dict(labels)
    else:
        allowed = {raw: index for index, raw in enumerate(labels)}
    by_text = {str(raw): label for raw, label in allowed.items()}
    mapped = []
    for index, raw in enumerate(rows.column(name)):
        label = by_text.get(str(int(raw)) if isinstance(raw, bool | float) and raw == int(raw) else str(raw))
        if label not in (0, 1):
            raise InputError(
                "a label is outside the set",
                where=f"{rows.place(index)}, column {name!r}",
                got=repr(raw),
                expected=" or ".join(dict.fromkeys(map(repr, allowed))),
                remedy="correct the row, or list the source's values under the `labels` key",
            )
        mapped.append(int(label))
    return mapped


def _identifiers(rows: Rows | _HubRows, name: str, split: str, indices: Sequence[int]) -> list[str]:
    """The source's ids; the split and row stand in for those that are missing or not unique."""
    values = rows.column(name, indices) if rows.has(name) else [None] * len(indices)
    texts = ["" if value is None else str(value) for value in values]
    counts = Counter(texts)
    return [t if t and counts[t] == 1 else f"{split}-{i}" for i, t in zip(indices, texts, strict=True)]


def _embedded(task: str, spec: Mapping[str, Any], seed: int) -> tuple[dict[str, dict[str, list]], dict, str]:
    """The embedded corpus's splits, the bounds that follow from its generator, and the joint those are stated for."""
    from ffnfold import microworld

    rows = {split: int((spec.get("rows") or {}).get(split) or 0) for split in SPLITS}
    items = getattr(microworld, f"generate_{task}")(seed, rows)
    tables = {split: {name: [getattr(it, name) for it in items[split]] for name in STORED[task]} for split in SPLITS}
    bounds: dict[str, Any] = {}
    if task == "language_modeling":
        bounds = microworld.bounds_language_modeling(items["test"])
    elif task == "sentiment":
        bounds = microworld.bounds_sentiment()
    return tables, bounds, microworld.JOIN


def _schema(task: str):
    import pyarrow

    kinds = {"label": pyarrow.int64()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in STORED[task]])


def _parquet_bytes(task: str, table: Mapping[str, list[Any]]) -> bytes:
    """A Parquet file's bytes, without anything that changes from run to run."""
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(table), schema=_schema(task)), buffer, compression="zstd")
    return buffer.getvalue()


def _fingerprint(task: str, tables: Mapping[str, Mapping[str, list[Any]]], join: str) -> str:
    """sha256 of the content alone: task, joint, then every row of every split as JSON; not of the file format."""
    digest = hashlib.sha256(json.dumps([task, join]).encode())
    for split in SPLITS:
        names = STORED[task]
        digest.update(f"\n{split}\n".encode())
        for row in zip(*(tables[split][name] for name in names), strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
