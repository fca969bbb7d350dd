"""What two runs of one study must agree on to the byte: all but times, latencies and what is drawn from them."""

import hashlib
import json
from pathlib import Path

TIMED_FIELDS = ("started_at", "duration_s")
TIMED_FILES = ("latency.parquet", "latency.csv", "latency.svg", "index.html", "provenance.json")
NOT_RESULTS = ("logs", "benchmarks")


def fingerprints(results: Path) -> dict[str, str]:
    """sha256 of every result by its path, times and latencies left out."""
    found = {}
    for path in sorted(p for p in results.rglob("*") if p.is_file()):
        name = path.relative_to(results)
        if name.parts[0] in NOT_RESULTS or path.name in TIMED_FILES:
            continue
        content = path.read_bytes()
        if name.parts[0] == "metrics" and path.suffix == ".json":
            record = {key: value for key, value in json.loads(content).items() if key not in TIMED_FIELDS}
            if record["metric"] == "latency":  # it takes every core of the run, and a cluster's job has its own
                del record["values"], record["device"]
            content = json.dumps(record, sort_keys=True).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def differences(first: Path, second: Path) -> list[str]:
    """Paths of results that only one run has or that differ."""
    a, b = fingerprints(first), fingerprints(second)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
