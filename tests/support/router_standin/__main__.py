"""The command: ``python -m tests.support.router_standin --config FILE``, with mongos's own options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stand-in. Returns the exit status that mongos would have."""
    from .options import OptionsError, load, parser

    arguments = parser().parse_args(argv)
    if arguments.version:
        from .commands import build_info

        info = build_info()
        print(f"mongos version v{info['version']}")
        print(
            "Build Info: "
            + json.dumps({name: info[name] for name in ("version", "gitVersion", "modules")}, indent=4)
        )
        return 0
    try:
        options = load(arguments)
    except OptionsError as error:
        print(f"{error}\ntry 'mongos --help' for more information", file=sys.stderr)
        return error.status

    from .log import Log
    from .server import Server

    try:
        server = Server(options, Log(options.log_path, append=options.log_append))
    except OSError as error:  # the log's folder, a certificate
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    status = server.run()
    # Client threads may wait for a server: they end with the process, which need not wait for them.
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
