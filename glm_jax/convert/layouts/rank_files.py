"""Where an original checkpoint keeps the files of its model-parallel ranks."""

from __future__ import annotations

import re
from pathlib import Path

from glm_jax.errors import UsageError

# Written by the original's own loop and by DeepSpeed's engine.
TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
_RANK_FILE = re.compile(r"mp_rank_([0-9]{2,3})_model_states\.pt")
_RANK_NAME = re.compile(r"mp_rank_([0-9]{2,3})_model_states")
_MAX_TAG_BYTES = 255


def rank_file_name(rank: int) -> str:
    """The file of one rank in the folder of its tag."""
    return f"mp_rank_{rank:02d}_model_states.pt"


def find_rank_files(path: Path) -> list[Path]:
    """The files of all ranks in order, from a checkpoint folder, a tag's folder or one file.

    Raises:
      UsageError: there is none, the tracker files are unusable or contradict each other, or files
        of ranks are missing from the sequence or named strangely.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"there is no checkpoint at {path}")
    tags = {name: _read_tag(path / name) for name in TRACKERS if (path / name).is_file()}
    if len(set(tags.values())) > 1:
        raise UsageError(
            f"{path / TRACKERS[0]} says {tags[TRACKERS[0]]!r} and {TRACKERS[1]} says "
            f"{tags[TRACKERS[1]]!r}: name the folder of the checkpoint itself"
        )
    folder = path
    for name, tag in tags.items():
        folder = path / tag
        if not folder.is_dir():
            raise UsageError(f"{path / name} names the checkpoint {tag!r}, which isn't there")
        break
    return _in_folder(folder)


def check_saved_name(file: Path, saved_name: str | None) -> None:
    """Checks that a file of one rank isn't another rank's renamed.

    Args:
      file: as it is named now.
      saved_name: what it was called when it was saved, None where that isn't recorded.

    Raises:
      UsageError: both name a rank, and not the same.
    """
    saved, now = _RANK_NAME.fullmatch(saved_name or ""), _RANK_FILE.fullmatch(file.name)
    if saved and now and int(saved[1]) != int(now[1]):
        raise UsageError(f"{file} was saved as {saved[0]}: the files of the ranks were swapped")


def _read_tag(tracker: Path) -> str:
    try:
        with tracker.open("rb") as file:
            tag = file.read(_MAX_TAG_BYTES + 1).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{tracker} can't be read as the name of a checkpoint") from error
    plain = tag and tag not in (".", "..") and not set(tag) & set("/\\\0\n\r")
    if not plain or len(tag) > _MAX_TAG_BYTES:
        raise UsageError(f"{tracker} holds {tag[:80]!r}, but should name one folder next to it")
    return tag


def _in_folder(folder: Path) -> list[Path]:
    ranks: dict[int, Path] = {}
    for file in sorted(folder.glob("mp_rank_*")):
        match = _RANK_FILE.fullmatch(file.name)
        if match is None or int(match[1]) in ranks:
            raise UsageError(f"{file} is not named as a rank's file, mp_rank_NN_model_states.pt")
        ranks[int(match[1])] = file
    if not ranks:
        raise UsageError(f"{folder} holds no {rank_file_name(0)} and is no original checkpoint")
    for rank in range(len(ranks)):
        if rank not in ranks:
            raise UsageError(
                f"{folder / rank_file_name(rank)} is missing, but {ranks[max(ranks)].name} is there"
            )
    return [ranks[rank] for rank in range(len(ranks))]
