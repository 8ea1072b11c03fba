"""Restoring many files: one that fails does not stop the others, and what an earlier run finished is not done again."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from osediff_exp.errors import UserError, shown
from osediff_exp.picture_header import open_picture
from osediff_exp.restoration.finished import FinishedRecord, file_identity, fingerprint
from osediff_exp.restoration.jobs import Job
from osediff_exp.restoration.picture_files import encode_picture, read_picture, written_whole
from osediff_exp.restoration.pictures import Picture
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.restoration.restorer import LARGE, Restorer
from osediff_exp.runtime import return_freed_memory

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of the files: seconds and output megapixels of the restored ones, and one line for each that is not restored.

    Attributes:
        seconds: of restoring and writing each; several photos are under way at once, so the whole takes less than their sum.
        stopped: why the job ended early (a full disk), or None.
    """

    seconds: list[float] = field(default_factory=list)
    megapixels: list[float] = field(default_factory=list)
    num_skipped: int = 0
    failures: list[str] = field(default_factory=list)
    stopped: str | None = None


@dataclass(frozen=True)
class _Restored:
    """A restored photo that is not written yet, what it was made of, and the seconds it took."""

    made_of: str
    picture: Picture
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What became of a photo: seconds and megapixels, or why it is not restored, or why none can be written any more."""

    seconds: float = 0.0
    megapixels: float = 0.0
    failure: str | None = None
    stopped: str | None = None


@dataclass(frozen=True, kw_only=True)
class FolderRestoration:
    """Restores files into a folder.

    Args:
        output: the folder.
        scale: 1..8.
        settings: what besides the photo decides how an output looks, as a fingerprint.
        overwrite: restore finished files again, and replace files that no run of ours wrote.
    """

    output: Path
    scale: int
    settings: str
    overwrite: bool = False

    def __call__(self, jobs: list[Job], load: Callable[[], Restorer], progress: FileProgress) -> Outcome:
        """Restore ``jobs``; ``load`` is called only if something is left to do.

        Raises:
            UserError: the folder cannot be written, or ``load`` raises it.
        """
        outcome, record = Outcome(), self._record()
        todo = [job for job in jobs if not self._is_settled(job, record, outcome)]
        for _ in range(len(jobs) - len(todo)):
            progress.advance()
        restorer = load() if todo else None
        if restorer is not None:
            restorer.tell_steps(progress.step)
            self._restore_all(todo, restorer, record, outcome, progress)
        return outcome

    def _restore_all(self, todo: list[Job], restorer: Restorer, record: FinishedRecord, outcome: Outcome, progress: FileProgress) -> None:
        """Restore one photo after the other; meanwhile the one before is encoded and written, and the next is read.

        On a GPU that takes longer than restoring does. Outputs are put in place, and failures named, in the photos' order. Of large
        photos one alone is in memory, and what it leaves free goes back to the system before the next is read.
        """
        with ThreadPoolExecutor(max_workers=2) as threads:
            coming: Future[tuple[str, Picture]] | None = None
            writing: Future[_Written] | None = None
            large = self._is_large(todo[0])
            for job, following in zip(todo, [*todo[1:], None], strict=True):
                progress.start(job.source.name)
                read = coming or threads.submit(self._read, job)
                alone, large = large, following is not None and self._is_large(following)
                ahead = None if alone or large else following
                coming = None if ahead is None else threads.submit(self._read, ahead)
                result = self._attempt(job, read, restorer)
                if alone:
                    return_freed_memory()  # another thread writes, whose memory glibc takes from elsewhere
                if writing is not None:
                    self._settle(writing.result(), outcome)
                if outcome.stopped:
                    return
                writing = threads.submit(self._write, job, result, record) if isinstance(result, _Restored) else None
                if isinstance(result, _Written):
                    self._settle(result, outcome)
                del read, result  # they hold pictures
                if writing is not None and ahead is None:
                    self._settle(writing.result(), outcome)
                    writing = None
                if alone:
                    return_freed_memory()
                progress.advance()
                if outcome.stopped:
                    return

    def _is_large(self, job: Job) -> bool:
        """Tell by its header whether a photo's output is a large one; what cannot be read is none."""
        try:
            with open_picture(job.source) as image:
                return image.width * image.height * self.scale**2 > LARGE
        except Exception:  # named when its turn comes
            return False

    def _record(self) -> FinishedRecord:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            return FinishedRecord(self.output)
        except OSError as error:
            raise UserError(f"output={self.output} cannot be used ({error.strerror}): give a folder that you can write") from error

    def _made_of(self, job: Job) -> str:
        return fingerprint(file_identity(job.source), self.settings)

    def _is_settled(self, job: Job, record: FinishedRecord, outcome: Outcome) -> bool:
        """Tell whether there is nothing to do: the output is finished, or stands in the way."""
        if self.overwrite or not job.source.is_file():  # one that has vanished meanwhile is named when its turn comes
            return False
        if record.is_finished(job.target, self._made_of(job)):
            outcome.num_skipped += 1
            return True
        if record.is_foreign(job.target):
            taken = f"{shown(self.output / job.target)} was not written by this program: set overwrite=true to replace it"
            _fail(outcome, f"{shown(job.source)}: {taken}")
            return True
        return False

    def _read(self, job: Job) -> tuple[str, Picture]:
        """Return what decides how the output looks, and the photo."""
        made_of = self._made_of(job)
        return made_of, _read(job.source)

    def _attempt(self, job: Job, read: Future[tuple[str, Picture]], restorer: Restorer) -> _Restored | _Written:
        """Restore a photo; one that cannot be read or restored is settled already."""
        try:
            made_of, picture = read.result()
            started = time.perf_counter()
            restored = _restored(picture, restorer, scale=self.scale, name=job.source.stem)
            return _Restored(made_of, restored, time.perf_counter() - started)
        except (UserError, ValueError, OSError) as error:
            return _Written(failure=f"{shown(job.source)}: {_one_line(error)}")

    def _write(self, job: Job, restored: _Restored, record: FinishedRecord) -> _Written:
        started = time.perf_counter()
        try:
            with written_whole(self.output / job.target) as temporary:
                temporary.write_bytes(encode_picture(restored.picture, job.target.suffix))
                record.add(job.target, restored.made_of, temporary)
        except (UserError, ValueError) as error:
            return _Written(failure=f"{shown(job.source)}: {_one_line(error)}")
        except OSError as error:
            if error.errno in _UNWRITABLE:
                return _Written(stopped=f"{self.output / job.target} cannot be written ({error.strerror})")
            return _Written(failure=f"{shown(job.source)}: {_one_line(error)}")
        height, width = restored.picture.size
        return _Written(seconds=restored.seconds + time.perf_counter() - started, megapixels=height * width / 1e6)

    @staticmethod
    def _settle(written: _Written, outcome: Outcome) -> None:
        """Note what became of a photo."""
        if written.stopped is not None:
            outcome.stopped = written.stopped
        elif written.failure is not None:
            _fail(outcome, written.failure)
        else:
            outcome.seconds.append(written.seconds)
            outcome.megapixels.append(written.megapixels)


def _read(path: Path) -> Picture:
    """Read a photo; whatever a decoder raises (struct.error, SyntaxError, ...) means a bad file."""
    try:
        return read_picture(path)
    except Exception as error:
        raise ValueError(f"unreadable: {_one_line(error)}") from error


def _restored(picture: Picture, restorer: Restorer, *, scale: int, name: str) -> Picture:
    try:
        return restorer.restore_picture(picture, scale=scale, name=name)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        height, width = picture.size
        raise ValueError(f"not enough memory for {width} x {height} at scale {scale}: use smaller tiles (restorer.tiling)") from error


def _fail(outcome: Outcome, line: str) -> None:
    outcome.failures.append(line)
    log.warning("not restored: %s", line)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
