"""How a command begins: as a script that becomes Invoke in a clone of the tool, and as the console script `provision`.

Until the tasks have said what Ctrl-C means, it ends the process as it ends any other: without a traceback out of
half-imported modules.
"""

# The module in C: to import `signal`, which is written in Python, takes long enough for a Ctrl-C to come in between.
import _signal  # type: ignore[import-not-found] # typeshed knows `signal` alone

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import contextlib
import gc
import io
import os
import sys
from pathlib import Path


def _encode_as_asked() -> None:
    """Do what PYTHONIOENCODING asks for: isolated, Python does not read it."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (encoding or errors):
            with contextlib.suppress(LookupError):
                stream.reconfigure(encoding=encoding or None, errors=errors or None)


def main() -> str | int | None:
    """Run the tasks of the tool, and of no `tasks.py`: the console script `provision`, and `python -m provision`."""
    from provision.core.typed import runs_as

    uvx = Path(sys.argv[0]).name == "flaskbook-provision"
    runs_as("uvx flaskbook-provision" if uvx else "provision")
    return _run("installed", handles_signals=True)


def _may_write_bytecode() -> bool:
    """Not into the folder of another user, who could not delete it; and not on a disk that is nearly full.

    Python 3.11 takes a .pyc for whole that a full disk has cut off, and each later command fails with it.
    """
    with contextlib.suppress(OSError):
        where = os.statvfs(__file__)
        return os.stat(__file__).st_uid == os.geteuid() and where.f_bavail * where.f_frsize >= 64 << 20  # noqa: PTH116
    return False


def _run(program: str, handles_signals: bool = False) -> str | int | None:
    """Run the program. `handles_signals`: no `tasks.py` of ours says what Ctrl-C means, so it is said here."""
    # What a command imports stays to its end. To look for garbage in it, again and again and once more at the end, is
    # a sixth of what a short command takes.
    gc.set_threshold(50_000, 20, 100)
    if (
        any(each.startswith("-") and ("dry" in each or "R" in each) for each in sys.argv)
        or not _may_write_bytecode()
    ):
        # What may be a dry run writes nothing. Asked roughly: to import what knows it would write.
        sys.dont_write_bytecode = True
    from provision.core import output, typed

    typed.runs_as_wrapper(os.environ)
    output.guard()

    from provision.cli.uncaught import install_excepthook

    install_excepthook()

    from provision.cli.light import import_invoke

    import_invoke()

    from provision.cli import interrupts
    from provision.cli import program as programs

    if handles_signals:
        interrupts.install()

    try:
        getattr(programs, program).run()
        code: str | int | None = 0
    except SystemExit as leaving:
        code = leaving.code
    gc.disable()
    gc.freeze()
    return output.status(code)


if __name__ == "__main__":
    _encode_as_asked()
    # What env/bin/invoke would have: its own name. Isolated (env/wrapper.py), Python puts no directory of ours on the path.
    sys.argv[0] = str(Path(sys.prefix, "bin", "invoke"))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(_run("program"))
