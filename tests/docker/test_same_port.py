"""Who answers is who was started, in Docker: clones whose containers have the same name and port."""

from __future__ import annotations

from pathlib import Path

from tests.support import racing
from tests.support.clones import Clone


def test_of_clones_started_at_once_in_docker_one_succeeds_and_the_others_say_who_holds_the_port(
    tmp_path: Path, mongo_image: str
) -> None:
    # One test: all these clones have the same compose project, so two races at a time would meet each other.
    for count in (2, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        clones: list[Clone] = racing.containers(folder, count, None, mongo_image)
        faults: list[str] = []
        try:
            racing.rounds(clones, 1, lambda done, faults=faults: faults.extend(done.faults))
        finally:
            racing.close(clones)
        assert faults == []
