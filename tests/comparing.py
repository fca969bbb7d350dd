"""What two runs of one study must agree on to the byte: all but times, latencies, memory and what comes of them."""

import hashlib
import json
from pathlib import Path

import pandas as pd

TIMED_FIELDS = ("started_at", "duration_s")
TIMED_FILES = ("latency.parquet", "latency.csv", "latency.svg", "index.html", "provenance.json", "claims.json")
MIXED_TABLES = ("comparisons.csv", "effects.csv", "questions.csv")  # rows of every metric
NOT_RESULTS = ("logs", "benchmarks", ".metadata")


def is_record(path: Path) -> bool:
    """Whether a file is a metric record."""
    return path.suffix == ".json" and ("metrics" in path.parts or "floors" in path.parts)


def timeless(path: Path) -> bytes:
    """A result's bytes without what was timed."""
    content = path.read_bytes()
    if path.name in MIXED_TABLES:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table[table["metric"] != "latency"].to_csv(index=False).encode()
    if is_record(path):
        record = {key: value for key, value in json.loads(content).items() if key not in TIMED_FIELDS}
        if record["metric"] == "latency":  # it takes every core of the run, and a cluster's job has its own
            del record["values"], record["device"]
        return json.dumps(record, sort_keys=True).encode()
    return content


def fingerprints(results: Path) -> dict[str, str]:
    """sha256 of every result by its path, times and latencies left out."""
    found = {}
    for path in sorted(p for p in results.rglob("*") if p.is_file()):
        name = path.relative_to(results)
        if not set(NOT_RESULTS) & set(name.parts) and path.name not in TIMED_FILES:
            found[str(name)] = hashlib.sha256(timeless(path)).hexdigest()
    return found


def differences(first: Path, second: Path) -> list[str]:
    """Paths of results that only one run has or that differ."""
    a, b = fingerprints(first), fingerprints(second)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main(first: str, second: str) -> int:
    """Compare two folders of results on the command line: `python tests/comparing.py FIRST SECOND`."""
    found, differ = fingerprints(Path(first)), differences(Path(first), Path(second))
    records = sum(is_record(Path(name)) for name in found)
    print(f"{len(found)} results compared, {records} of them metric records; {len(differ)} differ")
    for name in differ:
        print(f"  {name}")
    return int(bool(differ))


if __name__ == "__main__":
    import sys

    sys.exit(main(*sys.argv[1:]))
