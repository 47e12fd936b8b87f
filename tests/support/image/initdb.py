"""Runs inside the image: creates the root user on an empty data directory, as the official image's entry point does.

A mongod of its own, without authentication and reachable from inside only, is started on the data, the user
is created, and that mongod is stopped. The password comes from the environment and reaches no command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from router_standin.cluster import CommandError, Connection, Unreachable
from router_standin.options import Options

USED = ("WiredTiger", "journal", "local.0", "storage.bson")
# What the temporary mongod must not take over, each with whether a value follows.
DROPPED = {
    "--config": True, "-f": True, "--bind_ip": True, "--port": True, "--replSet": True, "--keyFile": True,
    "--logpath": True, "--pidfilepath": True, "--auth": False, "--bind_ip_all": False, "--logappend": False,
    "--configsvr": False, "--shardsvr": False,
}  # fmt: skip
PORT = 27017


def main() -> int:
    """Returns 0 when the user exists, 1 with a message when it could not be created."""
    arguments = sys.argv[2:]  # after this file and the word mongod
    data = data_directory(arguments)
    if any((data / name).exists() for name in USED):
        return 0
    process = subprocess.Popen(
        ["mongod", *without(arguments), "--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(PORT)],
        stdout=subprocess.DEVNULL,
    )
    try:
        connection = connect(process)
        connection.run(
            "admin",
            {
                "createUser": os.environ["MONGO_INITDB_ROOT_USERNAME"],
                "pwd": os.environ["MONGO_INITDB_ROOT_PASSWORD"],
                "roles": [{"role": "root", "db": "admin"}],
            },
        )
    except (CommandError, Unreachable, RuntimeError) as error:
        print(f"error: creating the root user failed: {error}", file=sys.stderr)
        process.kill()
        process.wait()
        return 1
    process.send_signal(signal.SIGTERM)
    process.wait()
    print("MongoDB init process complete; ready for start up.", flush=True)
    return 0


def connect(process: subprocess.Popen[bytes]) -> Connection:
    """Returns a connection once the temporary mongod answers. Raises RuntimeError when it ends or a minute passes."""
    deadline = time.monotonic() + 60
    options = Options(config_set="", config_seeds=())
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"mongod ended with status {process.returncode}")
        try:
            return Connection(("127.0.0.1", PORT), options)
        except Unreachable:
            time.sleep(0.02)
    raise RuntimeError("mongod does not listen")


def data_directory(arguments: list[str]) -> Path:
    """Returns where the data is, from the command line, else the configuration file, else the default."""
    given = values(arguments)
    if "--dbpath" in given:
        return Path(given["--dbpath"])
    file = given.get("--config", given.get("-f"))
    if file:
        import yaml

        document = yaml.safe_load(Path(file).read_text()) or {}
        if path := (document.get("storage") or {}).get("dbPath"):
            return Path(path)
    return Path("/data/db")


def values(arguments: list[str]) -> dict[str, str]:
    """Returns the options that have a value, in both spellings: `--name value` and `--name=value`."""
    found = {}
    for this, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = this.partition("=")
        if name.startswith("-"):
            found[name] = value if equals else following
    return found


def without(arguments: list[str]) -> list[str]:
    """Returns the arguments that the temporary mongod takes over."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif name in DROPPED or name == "--dbpath":
            skip = DROPPED.get(name, True) and not equals
        else:
            kept.append(argument)
    return kept


if __name__ == "__main__":
    sys.exit(main())
