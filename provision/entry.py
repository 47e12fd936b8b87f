"""Becomes Invoke; a script run by env/'s own interpreter.

Until the tasks have said what Ctrl-C means, it ends the process as it ends any other: without a traceback out of
half-imported modules.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from pathlib import Path

if __name__ == "__main__":
    # What env/bin/invoke would have: its own name, and not our modules' directory on the path.
    sys.argv[0] = str(Path(sys.prefix, "bin", "invoke"))
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from provision import output

    output.guard()

    from provision.uncaught import install_excepthook

    install_excepthook()

    from provision.program import program

    try:
        program.run()
        code: str | int | None = 0
    except SystemExit as leaving:
        code = leaving.code
    sys.exit(output.status(code))
