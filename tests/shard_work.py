"""Work for shards, in a module that the processes which carry them out can import."""

import os
import signal
import time
from pathlib import Path


def twice_the_first_late(number: int) -> int:
    """Twice the number; the lower it is the longer it takes."""
    time.sleep(0.2 if number == 0 else 0)
    return 2 * number


def note_the_process(file: str) -> int:
    """Leave a line in a file; the id of this process."""
    with open(file, "a", encoding="utf-8") as notes:
        notes.write("ran\n")
    return os.getpid()


def fail_on_three(shard: tuple[str, int]) -> int:
    """Leave a file for the number that ran; 3 raises."""
    folder, number = shard
    if number == 3:
        raise ValueError("three")
    (Path(folder) / str(number)).touch()
    return number


def die_once(shard: tuple[str, int]) -> int:
    """The number; 2 kills its process the first time."""
    folder, number = shard
    once = Path(folder) / "died"
    if number == 2 and not once.exists():
        time.sleep(0.3)  # the others are done by then
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def stay(file: str) -> None:
    """Name this process in a file, and never end."""
    Path(file).write_text(str(os.getpid()), "utf-8")
    while True:
        time.sleep(0.01)
