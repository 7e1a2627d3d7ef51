"""Checkpoints at URLs that orbax can't write to: orbax writes a local copy, which is uploaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from tempfile import TemporaryDirectory

from etils import epath

from glm_jax.checkpoints.async_save import RetentionPolicy
from glm_jax.checkpoints.location import check_one_process
from glm_jax.checkpoints.record import RECORD_ITEM, complete_steps
from glm_jax.io.files import copy_folder, remove_folder

POLL_SECONDS = 0.05


class Mirror:
    """A temporary local folder with the newest checkpoint of a folder at a URL.

    A checkpoint at the URL is complete when it has its record, which is uploaded last.

    Attributes:
      folder: the local folder.
    """

    def __init__(self, url: epath.Path, keep: RetentionPolicy | None):
        """Downloads the newest checkpoint.

        Args:
          url: the folder of the checkpoints.
          keep: which of them are kept; None keeps all.

        Raises:
          UsageError: the run has several processes, whose local folders are not one.
        """
        check_one_process(url)
        self._url = url
        self._keep = keep
        self._temporary = TemporaryDirectory(prefix="glm-jax-checkpoints-")
        self.folder = epath.Path(self._temporary.name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: Future[None] | None = None
        self.fetch()

    def fetch(self) -> None:
        """Makes the local folder hold the newest complete checkpoint of the URL, and no other."""
        for entry in self.folder.iterdir():
            remove_folder(entry)
        steps = complete_steps(self._url)
        if steps:
            newest = str(steps[-1])
            copy_folder(self._url / newest, self.folder / newest)

    def start_upload(self, step: int, is_saving: Callable[[], bool]) -> None:
        """Uploads a checkpoint in the background, once it is complete in the local folder.

        Args:
          step: of the checkpoint.
          is_saving: whether orbax is still writing it.
        """
        self._upload = self._thread.submit(self._upload_when_complete, step, is_saving)

    @property
    def uploading(self) -> bool:
        """Whether an upload is in progress."""
        return self._upload is not None and not self._upload.done()

    def wait(self) -> None:
        """Waits until no upload is in progress.

        Raises:
          Exception: what made the last upload fail.
        """
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()

    def _upload_when_complete(self, step: int, is_saving: Callable[[], bool]) -> None:
        while is_saving():
            time.sleep(POLL_SECONDS)
        if (self.folder / str(step)).is_dir():  # otherwise orbax reports why
            self.upload(step)

    def upload(self, step: int) -> None:
        """Uploads a checkpoint, then deletes those that are not kept."""
        remove_folder(self._url / str(step))  # what an upload that was interrupted left
        copy_folder(self.folder / str(step), self._url / str(step), last=RECORD_ITEM)
        self.delete_superseded()

    def delete_superseded(self) -> None:
        """Deletes the checkpoints at the URL that are not kept."""
        for step in self._keep.superseded(complete_steps(self._url)) if self._keep else ():
            remove_folder(self._url / str(step))

    def close(self) -> None:
        """Waits for an upload in progress, and removes the local folder."""
        self._thread.shutdown()
        self._temporary.cleanup()
