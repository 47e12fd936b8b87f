"""Who answers is who was started, in Docker: clones whose containers have the same name and port."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import racing
from tests.support.clones import Clone


@pytest.mark.parametrize("count", [2, 4])
def test_of_clones_started_at_once_in_docker_one_succeeds_and_the_others_say_who_holds_the_port(
    tmp_path: Path, mongo_image: str, count: int
) -> None:
    clones: list[Clone] = racing.containers(tmp_path, count, None, mongo_image)
    faults: list[str] = []
    try:
        racing.rounds(clones, 1, lambda done: faults.extend(done.faults))
    finally:
        racing.close(clones)
    assert faults == []
