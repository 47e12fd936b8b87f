"""What docs/architecture.md says of the code is so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def checked(*command: str) -> str:
    """What a program of env/ says of this repository, which must be that all is well."""
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_no_room_imports_from_one_above_it() -> None:
    assert " 0 broken" in checked("lint-imports", "--no-cache", "--no-logo")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert not [each for each in contracts if "ignore_imports" in each]


def test_every_import_is_declared_and_every_dependency_is_used() -> None:
    assert "No dependency issues" in checked("deptry", "--no-ansi", ".")


def test_the_scripts_for_ci_pass_shellcheck() -> None:
    scripts = sorted(map(str, (ROOT / "tools" / "ci").rglob("*.sh")))
    assert len(scripts) == 3
    assert checked("shellcheck", *scripts) == ""


def test_the_programs_for_hosts_pass_shellcheck() -> None:
    scripts = sorted((ROOT / "provision" / "hosts" / "scripts").rglob("*.sh"))
    assert len(scripts) > 30
    where = "provision/hosts/scripts"
    assert checked("shellcheck", "--external-sources", "--source-path", where, *map(str, scripts)) == ""


def test_the_programs_for_containers_pass_shellcheck() -> None:
    scripts = sorted((ROOT / "provision" / "backends" / "scripts").glob("*.sh"))
    assert [each.name for each in scripts] == ["data_folders.sh", "open_folder.sh"]
    assert checked("shellcheck", *map(str, scripts)) == ""


def test_no_program_for_a_host_is_a_string_in_a_module() -> None:
    """A shell's or Python's text of more than a line, where no shellcheck and no ruff would see it."""
    telling = re.compile(r"^(set -e|umask|fi|done|esac|import \w+)$", re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("hosts", "app", "backends", "deployments")
        for path in (ROOT / "provision" / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and telling.search(node.value)
    ]
    assert found == []


def test_nothing_lies_loose_beside_the_rooms() -> None:
    assert {path.name for path in (ROOT / "provision").iterdir() if path.is_file()} == {
        "__init__.py",
        "__main__.py",
    }


def imports(file: str) -> set[str]:
    """The modules of ours that a file imports, at its top or inside."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "provision" / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return {each for each in found if each.startswith("provision.")}


def test_back_ends_know_no_replica_sets_and_replica_sets_no_back_ends() -> None:
    commands = {f"provision.mongodb.{name}" for name in ("replica_set", "sharding", "membership")}
    for file in (ROOT / "provision" / "backends").glob("*.py"):
        assert not imports(f"backends/{file.name}") & commands, file.name
    for name in ("replica_set", "sharding"):
        assert not {each for each in imports(f"mongodb/{name}.py") if each.startswith("provision.backends")}


def test_the_modules_that_know_back_ends_and_commands_are_named() -> None:
    sentence = re.search(r"knows? both(?:[^.]|\.py)*\.", TEXT)
    assert sentence is not None
    for name in (
        "deployment",
        "bringup",
        "status",
        "cluster",
        "rolling",
        "upgrade",
        "moving",
        "app/tunnel",
    ):
        assert f"`{name}.py`" in sentence.group(0)


def test_the_document_that_proves_a_routers_write_is_said_to_stay() -> None:
    assert "collection is dropped again" not in TEXT
    assert "It stays where it is, in a database of the" in TEXT
    proof = (
        (ROOT / "provision" / "deployments" / "bringup.py")
        .read_text(encoding="utf-8")
        .split("def _prove_through")[1]
    )
    assert '"drop' not in proof.split("\ndef ")[0].split("\n    def ")[0]


def test_every_module_that_the_map_names_is_there() -> None:
    rooms = [*(ROOT / "provision").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    files = {path.name for path in rooms} | {"tasks.py"}
    the_map = TEXT.split("```")[1]
    assert set(re.findall(r"\b([a-z_]+\.py)\b", the_map)) - files == set()


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = []
    for file in (
        path for room in ("provision", "flaskbook", "tools") for path in (ROOT / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[0].end_lineno if documented else node.lineno
                if (node.end_lineno or 0) - (first or 0) >= 60:
                    long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert long == []
