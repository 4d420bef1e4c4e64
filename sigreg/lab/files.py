"""Files that are whole or not there, and that are known again. Needs no torch: the book's tools load it by its path."""

import hashlib
import os
import threading
from pathlib import Path


def write_whole(path, content) -> Path:
    """Write a file so that a reader, a crash or a power cut leaves the old one or the new one, never half of it.

    Args:
        path: of the file; folders above it are made.
        content: text, bytes, or a function that is given the open binary file and writes into it. If that function
            raises, the old file stands.

    Returns:
        The path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/a.txt", "one").read_text()
    'one'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        with open(temporary, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def sha256_of(path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def changed_files(record: dict, folder):
    """Yield what is wrong with the files that a record's units made, a line each: gone, or of other bytes."""
    for entry in record["units"]:
        for name, digest in entry.get("files", {}).items():
            path = Path(folder) / name
            found = sha256_of(path) if path.is_file() else None
            if found != digest:
                was = f"its sha256 is {found[:12]}…, the record has {digest[:12]}…" if found else "it is not there"
                yield f"{name}, which the run of {record['name']} made, is not the file it made ({was})"
