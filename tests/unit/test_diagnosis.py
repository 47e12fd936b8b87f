"""Why a mongod ended, in words."""

from __future__ import annotations

import json

import pytest

from provision.mongodb.config import Layout
from provision.mongodb.diagnosis import Salvage, explain_death

LAYOUT = Layout(data="/data/one", log="/log/one.log", bind_ip="127.0.0.1")


@pytest.mark.parametrize(
    ("status", "log", "cause", "remedy"),
    [
        (62, ["UPGRADE PROBLEM: Found an invalid document"], "can't read (exit status 62)", "mongodb.version"),
        (62, [], "/data/one were written by a version of MongoDB", "paths.data"),
        (14, ["unsupported WiredTiger file version: this build only supports"], "can't read", "paths.data"),
        (
            14,
            ["WiredTiger.wt is an unsupported WiredTiger source file version 9.1", "13: Permission denied"],
            "can't read",
            "paths.data",
        ),
        (100, ["DBPathInUse: Unable to lock the lock file"], "uses the data directory /data/one", "invoke doctor"),
        (14, ["pwrite: No space left on device"], "The disk that holds /data/one is full", "Free some space"),
        (14, ["Writing to log file failed, aborting application"], "The disk that holds /log/one.log is full", "Free"),
        (48, ["Failed to set up listener: Address already in use"], "Its port was taken", "names the process"),
        (1, ["Permission denied"], "may not read or write", "/log/one.log"),
        (-4, [], "AVX", "invoke doctor"),
        (132, [], "AVX", "invoke doctor"),
        (-9, [], "It was killed (signal 9)", "cache_size_gb"),
        (2, ["Unrecognized option: x"], "mongod ended at once (exit status 2)", "invoke logs"),
        (None, [], "mongod ended at once.", "invoke logs"),
    ],
)  # fmt: skip
def test_an_ending_is_explained(status: int | None, log: list[str], cause: str, remedy: str) -> None:
    found = explain_death(status, log, LAYOUT)
    assert cause in found[0]
    assert remedy in found[1]


def test_data_that_a_first_start_left_behind_are_explained_where_they_are_no_folder() -> None:
    line = json.dumps(
        {"s": "F", "c": "COMMAND", "id": 40652, "msg": "missing featureCompatibilityVersion document"}
    )
    salvage = Salvage("team", here=False, mongod="mongod", others=True, replica_set="rs0")
    cause, remedy = explain_death(14, [line], LAYOUT, salvage)
    assert cause.endswith("are not complete (exit status 14): MongoDB ended while it was making them.")
    assert remedy.splitlines()[1:] == [
        "invoke cluster.down --delete-data --on team",
        "invoke cluster.up --on team",
    ]
