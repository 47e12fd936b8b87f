"""Where everything that is printed goes: standard streams that cannot stop the work.

`guard` puts streams in the place of `sys.stdout` and `sys.stderr` that never raise. A closed pipe, a closed terminal, a
full disk: the first write that fails ends that stream, and the work goes on. A character that the stream's encoding
lacks is replaced. So nothing that stops or deletes something has to think of what it prints, and neither do Invoke,
rich, or the traceback module, which print through the same two names.

The status of a command says how its work went (`status`). For a command that does nothing but print, the output is the
work: it ends with 1 where the output was lost, and with 141, as other tools do, where its reader went away.

Standard library only, and readable to Python 3.8: the app's own interpreter uses it, too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_LOOK_MILLISECONDS = 100
_LAST_WORDS_MILLISECONDS = 1000
# Linux: poll says that a pipe has room where a write of this size does not wait.
_AT_ONCE = getattr(select, "PIPE_BUF", 512)
# The reader has gone: that is the reader's choice, and no fault of the output. A terminal says EIO for it.
_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET})
READER_GONE = 128 + signal.SIGPIPE
OUTPUT_LOST = 1

_ending = False
_cleaning_up = False
_output_is_the_work = True


class _Endable(io.RawIOBase):
    """A descriptor that is written to until that fails; from then on what is written goes nowhere.

    The descriptor then leads to /dev/null, so that programs started later can write to it, too.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._terminal = stat.S_ISCHR(os.fstat(descriptor).st_mode)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = memoryview(data)[:_AT_ONCE]  # type: ignore[arg-type]
        while True:
            try:
                self._wait_for_room()
                return os.write(self._descriptor, chunk)
            except BlockingIOError:  # another program made it non-blocking, and it is full
                continue
            except OSError as error:
                self._end(error)
                return len(chunk)

    def _wait_for_room(self) -> None:
        """Wait until the reader takes more; while this process ends or cleans up, no longer than for a few last words."""
        look = select.poll()
        look.register(self._descriptor, select.POLLOUT)
        while not (_ending or _cleaning_up):
            if look.poll(_LOOK_MILLISECONDS):
                return
        if not look.poll(_LAST_WORDS_MILLISECONDS):
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))

    @property
    def reader_gone(self) -> bool:
        """Whether it failed because nobody reads on."""
        number = self.failure.errno if self.failure else None
        return number in _GONE or (number == errno.EIO and self._terminal)

    def _end(self, failure: OSError) -> None:
        self.failure = failure
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)


def guard() -> None:
    """Make the standard streams safe to print to; call it first of all. A second call changes nothing.

    A descriptor that was closed is opened on /dev/null: no file or connection that is opened later may become
    "standard output", and no program that is started later may find it closed.
    """
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest free number is this one, because those below it are open
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115
    if _raw(sys.stdout) is None:
        sys.stdout = _stream(_STDOUT, sys.stdout, line_buffering=False)
    if _raw(sys.stderr) is None:
        sys.stderr = _stream(_STDERR, sys.stderr, line_buffering=True)


def _stream(descriptor: int, before: object, *, line_buffering: bool) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_Endable(descriptor))
    if not isinstance(before, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", "replace", line_buffering=line_buffering)
    before.flush()
    return io.TextIOWrapper(
        buffer,
        before.encoding,
        "replace",
        line_buffering=line_buffering or before.line_buffering,
        write_through=before.write_through,
    )


def _raw(stream: object) -> _Endable | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", None)
    return raw if isinstance(raw, _Endable) else None


def hurry() -> None:
    """This process is ending: from now on, a reader that takes nothing is waited for a second and no longer.

    A terminal that was stopped with Ctrl-S, or a pipe that nobody empties, must not keep anything running.
    """
    global _ending
    _ending = True


@contextlib.contextmanager
def briefly() -> Iterator[None]:
    """The same for the length of a block that stops or removes something."""
    global _cleaning_up
    before, _cleaning_up = _cleaning_up, True
    try:
        yield
    finally:
        _cleaning_up = before


def work_begins() -> None:
    """What follows does more than print: its status no longer depends on the output."""
    global _output_is_the_work
    _output_is_the_work = False


def ended() -> bool:
    """Whether nobody gets what is printed on standard output any more."""
    raw = _raw(sys.stdout)
    return raw is not None and raw.failure is not None


@contextlib.contextmanager
def ends_with_reader() -> Iterator[None]:
    """End this process when the reader of standard output goes away, even while there is nothing to print.

    For a command that prints for ever and does nothing else.
    """
    raw = _raw(sys.stdout)
    if raw is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(READER_GONE)

    before = signal.signal(signal.SIGPIPE, leave)
    descriptor = raw.fileno()
    over = threading.Event()

    def watch() -> None:
        look = select.poll()
        look.register(descriptor, 0)  # errors and hang-ups are told unasked
        while not over.is_set():
            if look.poll(_LOOK_MILLISECONDS):
                if not over.is_set():
                    os.kill(os.getpid(), signal.SIGPIPE)
                return

    watcher = threading.Thread(target=watch, daemon=True, name="reader of the output")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGPIPE, before)


def status(code: str | int | None) -> str | int | None:
    """The exit status of this process, once its output is written: that of the work.

    What the work ended with, unless the command does nothing but print and its output was lost.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # closed by what has run
            stream.flush()
    raw = _raw(sys.stdout)
    if raw is None or raw.failure is None:
        return code
    if raw.reader_gone:
        return READER_GONE if _output_is_the_work and not code else code
    sys.stderr.write(
        "error: writing to standard output\n"
        f"  why:  {os.strerror(raw.failure.errno or errno.EIO)}. Of what was printed, some is lost.\n"
        + (
            "  next: Free space there, or send the output elsewhere; then type the same again.\n"
            if _output_is_the_work
            else "  next: Free space there. The command went on without it; `invoke status` shows what runs.\n"
        )
    )
    return OUTPUT_LOST if _output_is_the_work and not code else code
