"""Invoke as this tool runs it."""

from __future__ import annotations

import pytest

from provision.cli.program import installed


@pytest.mark.parametrize(
    ("typed", "known", "unknown"),
    [
        (["status", "--json"], {"status"}, {"start", "hosts.plan"}),
        (["--help", "start"], {"start"}, {"status"}),
        (["cluster.up", "--on", "local", "status"], {"cluster.up", "status"}, {"start"}),
        (["--complete", "--", "provision", "sta"], {"status", "start", "hosts.plan", "snapshot.list"}, set()),
    ],
)
def test_the_tasks_that_are_typed_are_known_and_all_to_complete_one(
    typed: list[str], known: set[str], unknown: set[str]
) -> None:
    program = type(installed)(name="provision", binary="provision", config_class=installed.config_class)
    program.create_config()
    program.parse_core(["provision", *typed])
    program.parse_collection()
    program.parse_tasks()
    contexts = program.parser.contexts
    assert known <= set(contexts)
    assert not unknown & set(contexts)
