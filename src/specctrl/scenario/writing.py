"""A file is written beside its place and renamed: whoever reads it sees the old one or the new one, whole."""

import os
import tempfile
from pathlib import Path


class Replacement:
    """A new content for a file; OSError if it cannot be written, at once or when it is put.

    The old file stays as it is until the new one is whole.  A device or a pipe is written as it is.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._file = Path(os.path.realpath(file))
        self._beside: Path | None = None
        if self._file.exists() and not self._file.is_file():
            self._file.open("ab").close()
            return
        handle, beside = tempfile.mkstemp(prefix=f".{self._file.name[:100]}.", suffix=".new", dir=self._file.parent)
        os.close(handle)
        self._beside = Path(beside)

    def put(self, content: str | bytes) -> None:
        """Write it, and put it in the file's place."""
        data = content.encode() if isinstance(content, str) else content
        if self._beside is None:
            self._file.write_bytes(data)
            return
        self._beside.write_bytes(data)
        self._beside.chmod(self._file.stat().st_mode & 0o777 if self._file.exists() else 0o666 & ~_umask())
        self._beside.replace(self._file)

    def drop(self) -> None:
        """Leave nothing beside the file."""
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)


def write_whole(file: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file whole or not at all; OSError if it cannot be."""
    replacement = Replacement(file)
    try:
        replacement.put(content)
    finally:
        replacement.drop()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
