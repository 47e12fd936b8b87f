"""The floor: the least a careful user would write to start a mongod and wait until it takes writes.

A script that `invoke bench` runs as a process of its own: ``floor.py PORT REPLICA_SET MONGOD OPTION...``. It
starts that mongod, imports PyMongo meanwhile, probes the socket every 10 ms, initiates the replica set where
the data are new, and returns when a majority write was acknowledged. It prints mongod's pid and leaves it
running.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time

port, replica_set, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
mongod = subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
)

from pymongo import MongoClient  # noqa: E402 — while mongod starts

while True:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        if mongod.poll() is not None:
            sys.exit(f"mongod ended with status {mongod.returncode}")
        time.sleep(0.01)
# Without directConnection PyMongo would look for the set's members, and look again only every 0.5 s.
client: MongoClient[dict[str, object]] = MongoClient(
    "127.0.0.1", port, directConnection=True, retryWrites=False
)
with client:
    hello = client.admin.command("hello")
    if "setName" not in hello and hello.get("isreplicaset"):
        # Data that were initiated say so too, until their configuration is loaded.
        client.admin.command(
            "replSetInitiate",
            {"_id": replica_set, "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]},
            allowable_errors=[23],
        )
    while not client.admin.command("hello")["isWritablePrimary"]:
        time.sleep(0.01)
    # The same write that `invoke start` waits for: an oplog entry that leaves no document behind.
    client.admin.command("appendOplogNote", 1, data={"msg": "writable"}, writeConcern={"w": "majority"})
sys.stdout.write(f"{mongod.pid}\n")
