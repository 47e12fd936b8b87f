"""`invoke setup`: idempotent steps, each changed or unchanged and why."""

from __future__ import annotations

import json
import shutil

from tests.support.clones import Clone

STEPS = ["directories", "virtualenv", "requirements", "mongod", "mongod.conf", "SECRET_KEY"]


def words(output: str) -> dict[str, str]:
    """Step → ``changed``, ``unchanged`` or ``would``, of lines that begin with a step's name."""
    return {
        line.split()[0]: line.split()[1] for line in output.splitlines() if line and not line.startswith(" ")
    }


def files(clone: Clone) -> dict[str, int]:
    return {
        str(path.relative_to(clone.root)): path.stat().st_mtime_ns
        for path in clone.root.rglob("*")
        if path.relative_to(clone.root).parts[0] != "env"
        and path.is_file()
        and "locks" not in path.parts
        and path.name
        != "settings.json"  # which settings were accepted, so that they need not be judged again
    }


def test_a_second_setup_changes_nothing(clone: Clone) -> None:
    first = words(clone.succeeds("setup"))
    assert [step for step in STEPS if first[step] == "changed"] == [
        "directories",
        "mongod",
        "mongod.conf",
        "SECRET_KEY",
    ]
    before = files(clone)
    second = words(clone.succeeds("setup"))
    assert {second[step] for step in STEPS} == {"unchanged"}
    assert files(clone) == before


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(clone: Clone) -> None:
    before = files(clone)
    output = clone.succeeds("setup", "--dry-run")
    assert "would change" in output
    assert words(output)["mongod"] == "would"
    assert files(clone) == before
    assert not (clone.root / "data").exists()
    assert not (clone.root / ".state").exists()


def test_each_drifted_piece_is_mended_and_nothing_else(clone: Clone) -> None:
    clone.set_up()
    secret = clone.root / ".state" / "secret_key"
    value = secret.read_text()
    secret.chmod(0o644)
    assert {step for step, word in words(clone.succeeds("setup")).items() if word == "changed"} == {
        "SECRET_KEY"
    }
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (value, 0o600)

    secret.write_text("short\n")
    assert words(clone.succeeds("setup"))["SECRET_KEY"] == "changed"
    assert len(secret.read_text().strip()) == 64

    shutil.rmtree(clone.root / "log")
    assert {step for step, word in words(clone.succeeds("setup")).items() if word == "changed"} == {
        "directories"
    }


def test_a_changed_setting_renders_the_configuration_anew(clone: Clone) -> None:
    clone.set_up()
    changed = {"INVOKE_DEPLOYMENTS_LOCAL_CACHE_SIZE_GB": "0.5"}
    assert words(clone.succeeds("setup", env=changed))["mongod.conf"] == "changed"
    assert "cacheSizeGB: 0.5" in (clone.root / "mongod.conf").read_text()


def test_timings_and_json(clone: Clone) -> None:
    assert " s)" in clone.succeeds("setup", "--timings").splitlines()[0]
    results = json.loads(clone.succeeds("setup", "--json"))
    assert [each["name"] for each in results if each["name"] in STEPS] == STEPS
    assert not any(each["changed"] for each in results)
    assert all(set(each) == {"name", "changed", "why", "seconds"} for each in results)


def test_secrets_and_records_are_their_owners_alone(clone: Clone) -> None:
    clone.succeeds("setup")
    assert (clone.root / ".state").stat().st_mode & 0o777 == 0o700
    assert (clone.root / ".state" / "secret_key").stat().st_mode & 0o777 == 0o600
    secret = (clone.root / ".state" / "secret_key").read_text().strip()
    assert secret not in clone.succeeds("setup")
    assert secret not in clone.succeeds("settings")


def test_directories_elsewhere_are_made(clone: Clone) -> None:
    env: dict[str, str | None] = {"INVOKE_PATHS_DATA": "~/db", "INVOKE_PATHS_LOG": str(clone.home / "logs")}
    clone.succeeds("setup", env=env)
    assert (clone.home / "db").is_dir()
    assert (clone.home / "logs").is_dir()
    assert str(clone.home / "db") in (clone.root / "mongod.conf").read_text()
