"""The stock checkpoint that computes what a tied one computes: `python -m ffnfold.expand CHECKPOINT FOLDER`.

For loaders that know nothing of sharing, such as any program without this library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ffnfold.checkpoints import load_config, load_state, save_checkpoint, verify_checkpoint
from ffnfold.errors import InputError
from ffnfold.files import MANIFEST


def expand_checkpoint(checkpoint: str | Path, directory: str | Path) -> None:
    """Write a tied checkpoint, with its tokenizer, as a stock one; a stock one is copied.

    Args:
        checkpoint: folder of a variant.
        directory: folder to write; may not hold a checkpoint yet.

    Raises:
        InputError: the checkpoint was changed since it was written, or the folder is taken.
    """
    from ffnfold.sharing import expand

    checkpoint, directory = Path(checkpoint), Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            "the folder to write is not empty" if directory.is_dir() else "the folder to write is a file",
            where=str(directory),
            expected="a new or an empty folder",
            remedy="name another one",
        )
    config = load_config(checkpoint)
    if (checkpoint / MANIFEST).is_file():
        verify_checkpoint(checkpoint)
    save_checkpoint(directory, *expand(load_state(checkpoint), config), checkpoint)


def main(arguments: Sequence[str] | None = None) -> int:
    """Expand one checkpoint; 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(prog="python -m ffnfold.expand", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder such as .../shared_4/recovered/0")
    parser.add_argument("directory", metavar="FOLDER", help="folder to write")
    options = parser.parse_args(arguments)
    try:
        expand_checkpoint(options.checkpoint, options.directory)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.directory}: a stock checkpoint, {load_config(options.directory)['architectures'][0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
