"""The one door to the Hugging Face hub: is it there, fetch from it, and say plainly what went wrong."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ffnfold.errors import InputError
from ffnfold.files import sha256_file

DATA_SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
LOCAL_REMEDY = "write local files under the same `source` key"
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(source: object) -> bool:
    """Whether a source names a hub repository: `owner/name`, and nothing of that name lies on this machine.

    Args:
        source: the study's `source` value; only text can be a hub id.
    """
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        return False
    return not source.endswith(DATA_SUFFIXES) and not Path(source).exists()


def check_hub_reachable(sources: Iterable[str], timeout_s: float = 10.0) -> None:
    """Ask the hub one question before any job runs; do nothing where no source needs it.

    Args:
        sources: hub ids that the study needs.
        timeout_s: seconds allowed for the whole request, name look-up included.

    Raises:
        InputError: no answer in time; or, with `HF_HUB_OFFLINE` set, a source that the cache does not hold.
    """
    needed = sorted({source for source in sources if is_hub_id(source)})
    if not needed:
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        missing = [source for source in needed if not _is_cached(source)]
        if missing:
            raise InputError(
                "HF_HUB_OFFLINE is set and the cache does not hold every source of the study",
                where=str(constants.HF_HUB_CACHE),
                got=f"not cached: {', '.join(missing)}",
                expected="each source fetched before, or local files",
                remedy=f"unset HF_HUB_OFFLINE for one run to fill the cache, or {LOCAL_REMEDY}",
            )
        return
    failure = _probe(constants.ENDPOINT, timeout_s)
    if failure is not None:
        raise _unreachable(", ".join(needed), failure)


def _probe(endpoint: str, timeout_s: float) -> str | None:
    """Request the endpoint in a thread that can be left behind, since a name look-up cannot be interrupted."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            from huggingface_hub import get_session

            status = get_session().head(endpoint, timeout=timeout_s, follow_redirects=False).status_code
            refused = status == 407 or status >= 500
            outcome.append(f"HTTP status {status}" if refused else None)
        except Exception as error:  # whatever the transport raises is one and the same news: no answer
            outcome.append(_one_line(error))

    thread = threading.Thread(target=ask, daemon=True, name="hub-probe")
    thread.start()
    thread.join(timeout_s)
    return outcome[0] if outcome else f"no answer within {timeout_s:g} s"


def _unreachable(sources: str, failure: str) -> InputError:
    from huggingface_hub import constants

    return InputError(
        "the Hugging Face hub cannot be reached",
        where=f"{constants.ENDPOINT}, needed for {sources}",
        got=failure,
        expected="an answer from the hub, or sources that need no network",
        remedy=f"{LOCAL_REMEDY}; or set HF_HUB_OFFLINE=1 with a filled cache; or HF_ENDPOINT to a mirror; "
        "or run the study `mini`, which needs no network",
    )


def _is_cached(source: str) -> bool:
    """Whether the hub's cache or the prepared data sets' cache holds any revision of a repository."""
    from huggingface_hub import constants

    folder = source.replace("/", "--")
    hub = Path(constants.HF_HUB_CACHE)
    if any(any((hub / f"{kind}--{folder}" / "snapshots").glob("*/*")) for kind in ("models", "datasets")):
        return True
    default = Path(constants.HF_HOME) / "datasets"
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", default)) / source.replace("/", "___").lower()
    return prepared.exists()


@contextmanager
def readable_errors(source: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's libraries raise into one message; an InputError passes unchanged.

    Raises:
        InputError: repository, revision or file not found, access refused, or no connection.
    """
    from huggingface_hub import errors as hub

    at = f"{source} at revision {revision or 'main'}"
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        chain = list(_chain(error))
        if any(isinstance(link, hub.GatedRepoError) or "is a gated dataset" in str(link) for link in chain):
            raise InputError(
                "the hub refuses access to this repository",
                where=at,
                got="a gated repository",
                remedy="accept its terms on its page and run `hf auth login`, or " + LOCAL_REMEDY,
            ) from None
        if any(isinstance(link, hub.RevisionNotFoundError) for link in chain):
            raise InputError(
                "the hub has no such revision of this repository",
                where=source,
                got=f"revision {revision or 'main'}",
                expected="a commit, branch or tag of that repository",
                remedy="correct the `revision` key",
            ) from None
        if any(isinstance(link, hub.RepositoryNotFoundError) or _is(link, "DatasetNotFoundError") for link in chain):
            raise InputError(
                "the hub has no such repository, and no local file or folder has this name",
                where=at,
                got="repository not found (or private)",
                remedy="correct the `source` key, or " + LOCAL_REMEDY,
            ) from None
        if isinstance(error, ValueError) and "BuilderConfig" in str(error):
            raise InputError(
                "the data set has no such subset",
                where=at,
                got=_one_line(error),
                remedy="correct the `subset` key",
            ) from None
        if any(_is_connection_failure(link) for link in chain):
            raise _unreachable(at, _one_line(error)) from None
        if any(isinstance(link, hub.EntryNotFoundError | hub.HfHubHTTPError) or _is_data_error(link) for link in chain):
            raise InputError(
                "the hub's repository cannot be read",
                where=at,
                got=_one_line(error),
                remedy="check the repository's page, or " + LOCAL_REMEDY,
            ) from None
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors behind it, nearest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)


def _is_connection_failure(error: BaseException) -> bool:
    transport = ("TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError")
    return isinstance(error, ConnectionError | TimeoutError) or any(_is(error, name) for name in transport)


def _is_data_error(error: BaseException) -> bool:
    names = ("DatasetsError", "DatasetBuildError", "FileNotFoundError", "ArrowInvalid")
    return any(_is(error, name) for name in names)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def download_checkpoint(source: str, revision: str | None, *, weights: bool = True) -> Path:
    """Fetch a checkpoint's files into the hub's cache; return the folder of that revision.

    Args:
        source: hub id.
        revision: commit, branch or tag; None for `main`.
        weights: whether to fetch the safetensors files too, or configuration and tokenizer only.

    Raises:
        InputError: as `readable_errors`.
    """
    from huggingface_hub import snapshot_download

    check_hub_reachable([source])  # one question instead of the library's retries
    patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
    with readable_errors(source, revision):
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    if weights:
        _check_weights(folder, source)
    return folder


def _check_weights(folder: Path, source: str) -> None:
    """Compare downloaded weights with the sha256 by which the hub's cache names them.

    Raises:
        InputError: a file in the cache is not the one that the hub announced; names both sha256.
    """
    for path in folder.glob("*.safetensors"):
        announced = path.resolve().name
        if re.fullmatch("[0-9a-f]{64}", announced) and sha256_file(path) != announced:
            raise InputError(
                "a downloaded file is not the one that the hub announced",
                where=f"{source}: {path}",
                got=f"sha256 {sha256_file(path)}",
                expected=f"sha256 {announced}",
                remedy=f"delete {path.resolve()} and run the workflow again",
            )


def list_weight_files(source: str, revision: str | None) -> list[str]:
    """Names of a hub repository's weight files in any format, for a message; empty when it cannot be asked."""
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(source, revision=revision)
    except Exception:  # the list only makes a message more helpful
        return []
    return sorted(name for name in names if name.endswith((".bin", ".safetensors", ".h5", ".msgpack", ".pt", ".ckpt")))


def load_hub_dataset(source: str, subset: str | None, revision: str | None):
    """Load a data set of the hub (no code of the repository is run); return its `DatasetDict`.

    Args:
        source: hub id.
        subset: the data set's configuration, such as `wikitext-2-raw-v1`; None for its default.
        revision: commit, branch or tag; None for `main`.

    Raises:
        InputError: as `readable_errors`.
    """
    import datasets

    datasets.disable_progress_bars()
    check_hub_reachable([source])
    config = datasets.DownloadConfig(max_retries=1, disable_tqdm=True)
    with readable_errors(source, revision):
        return datasets.load_dataset(source, subset, revision=revision, download_config=config)
