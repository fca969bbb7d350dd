"""Which library modules a script depends on, read from its imports; Snakemake does not see imports itself."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# How a job is started does not shape what it computes.
NOT_TRACKED = {PACKAGE / "jobs.py", PACKAGE / "preload.py"}


def _module_files(name: str) -> list[Path]:
    """Files of a dotted module name inside this package, its parents' `__init__.py` among them; [] for any other."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return []
    files, folder = [], PACKAGE.parent
    for part in parts:
        if (folder / part / "__init__.py").is_file():
            folder = folder / part
            files.append(folder / "__init__.py")
        elif (folder / f"{part}.py").is_file():
            return [*files, folder / f"{part}.py"]
        else:
            break
    return files


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Files that one file imports from this package, wherever in it the imports stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(file for name in names for file in _module_files(name))


def library_files(*roots: Path, without: Iterable[Path] = ()) -> list[Path]:
    """All library files that the roots import, directly or through one another, the roots left out; sorted.

    Args:
        roots: scripts or modules.
        without: modules that are not followed; they are in the answer only as a root's own.
    """
    found: set[Path] = set()
    left_out = NOT_TRACKED | {Path(path).resolve() for path in without}
    pending = [Path(root).resolve() for root in roots]
    while pending:
        for file in _imports(pending.pop()) - found - left_out:
            found.add(file)
            pending.append(file)
    return sorted(found)
