"""One writer at a time; a killed holder leaves no lock behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.core.locks import exclusive
from tests.support.polling import until

ROOT = Path(__file__).resolve().parents[2]
HOLDER = (
    "import sys\nfrom pathlib import Path\nfrom provision.core.locks import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'holding it'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def test_a_second_holder_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    path, said, got = tmp_path / "new" / "lock", [], threading.Event()

    def second() -> None:
        with exclusive(path, "starting", said.append):
            got.set()

    with held_by_another_process(path) as holder:
        thread = threading.Thread(target=second)
        thread.start()
        until("the second to wait", lambda: said)
        assert said == [f"Waiting for process {holder.pid} (holding it) before starting ..."]
        assert not got.is_set()
        holder.communicate()
        thread.join()
    assert got.is_set()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path / "lock") as holder:
        holder.kill()
        holder.wait()
        with exclusive(tmp_path / "lock", "going on", lambda _: pytest.fail("nobody holds it")):
            pass


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "spawning"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        # Not at once, perhaps: the kernel closes a new program's inherited files a moment after its start.
        with exclusive(tmp_path / "lock", "going on"):
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive(tmp_path / "lock", "failing"):
        raise RuntimeError
    with exclusive(tmp_path / "lock", "going on", lambda _: pytest.fail("nobody holds it")):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} going on\n"
