"""Pictures of the terminal for the documentation: real commands, typed into a real shell, on a real mongod.

The shop of `shop/` lies in a home directory of its own below the temporary directory, with all that it starts.
Nothing of the clone's own deployments is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from provision.core.errors import ProvisionError
from provision.core.files import write_atomically
from tools.terminal import people
from tools.terminal.screen import Screen
from tools.terminal.typing import COLUMNS, Shell

if TYPE_CHECKING:
    from provision.settings.loading import Loaded

_DOING = "taking pictures of the terminal"
_SHOP = Path(__file__).parent / "shop"
_PROGRAM = """\
#!{python} -I
import sys

sys.path.insert(0, {root!r})
sys.argv[0] = "provision"
from provision.cli.entry import main

sys.exit(main())
"""


def take(loaded: Loaded, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Take the pictures, each in light and dark; `say` is told of each. Raises ProvisionError."""
    from provision.mongodb import binaries

    mongod = binaries.recorded(loaded.paths, loaded.settings.mongodb)
    if mongod is None:
        raise ProvisionError(_DOING, "No mongod has been chosen yet.", "Type `invoke setup` first.")
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with _home(loaded.paths.root, mongod.path) as (home, environment):
        for name, title, folder_of_project, session in _SESSIONS:
            with Shell(home / folder_of_project, environment) as shell:
                session(shell)
                screen = Screen.of(shell.shown.rpartition(b"\n")[0])
            for scheme in ("light", "dark"):
                path = folder / f"terminal-{name}-{scheme}.svg"
                picture = screen.svg(title, scheme, COLUMNS).encode()
                write_atomically(path, picture)
                taken.append(path)
                say(f"{path.name}  {len(picture) // 1000} kB")
    return taken


@contextlib.contextmanager
def _home(root: Path, mongod: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A home directory with the shop, and another one as `staging`; what they started ends with the block."""
    # The pictures show the path: the same one each time.
    home = Path(tempfile.gettempdir()) / "ann"
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        raise ProvisionError(_DOING, f"{home} is there already.", f"Remove it: rm -r {home}") from None
    environment = {
        "HOME": str(home),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        **{
            f"GIT_{who}_{what}": text
            for who in ("AUTHOR", "COMMITTER")
            for what, text in (("NAME", "Ann"), ("EMAIL", "ann@example.org"))
        },
    }
    try:
        _program(home / "bin" / "provision", root)
        for name in ("shop", "staging"):
            _project(home / name, mongod, environment)
        _run(["provision", "start"], home / "shop", environment)
        yield home, environment
    finally:
        for project in home.glob("*/invoke.yaml"):
            subprocess.run(["provision", "stop"], cwd=project.parent, env=environment, capture_output=True)
        shutil.rmtree(home)


def _program(path: Path, root: Path) -> None:
    path.parent.mkdir()
    path.write_text(_PROGRAM.format(python=sys.executable, root=str(root)))
    path.chmod(0o755)


def _project(folder: Path, mongod: Path, environment: dict[str, str]) -> None:
    shutil.copytree(_SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    people.write(folder / "seeds")
    # Committed, so that a worktree has it, too: this mongod, with no word about its age in each picture.
    with (folder / "invoke.yaml").open("a") as settings:
        settings.write(f"mongodb:\n  source: path\n  path: {mongod}\n")
    for command in (
        ["git", "init", "--quiet", "--initial-branch", "main"],
        ["git", "add", "."],
        ["git", "commit", "--quiet", "--message", "The shop"],
    ):
        _run(command, folder, environment)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ProvisionError(_DOING, f"{' '.join(command)} failed: {done.stderr}", "Correct that.")
    return done.stdout


def _reset(shell: Shell) -> None:
    """Run first: it leaves the shop with its data."""
    shell.unseen("provision setup")
    shell.type("provision reset", "y")
    shell.type("provision shell -p -e 'db.orders.delete_many({\"sent\": False}).deleted_count'")
    shell.type("provision reset --yes")


def _snapshots(shell: Shell) -> None:
    shell.type("provision snapshot.save before-discounts")
    shell.type("provision shell -p -e 'db.orders.delete_many({}).deleted_count'   # a mistake")
    shell.type("provision snapshot.list")
    shell.type("provision snapshot.restore before-discounts", "y")
    shell.type("provision shell -p -e 'db.orders.count_documents({})'")


def _worktrees(shell: Shell) -> None:
    shell.type("git worktree add --quiet ../shop-fix -b fix")
    shell.type("cd ../shop-fix")
    shell.unseen("provision setup")
    shell.type("provision clone --from ../shop", "y")
    shell.type("provision shell -p -e 'db.orders.count_documents({})'")
    shell.type("provision ps")


def _pull(shell: Shell) -> None:
    shell.unseen("cd ../staging && provision start && provision reset --yes && cd ../shop")
    shell.unseen("cd ../staging && provision uri --database shop > ../staging.uri && cd ../shop")
    shell.unseen("provision shell -p -e 'client.drop_database(\"shop\")'")
    shell.type("export PULL_URI=$(cat ~/staging.uri)")
    shell.type("provision pull --collections orders --sample 5%")
    shell.type("provision shell -p -e 'db.users.find_one()'")


# Of each: the picture's name, its title, the folder and what is typed there.
_SESSIONS: tuple[tuple[str, str, str, Callable[[Shell], None]], ...] = (
    ("reset", "Reset in a second", "shop", _reset),
    ("snapshots", "Snapshots", "shop", _snapshots),
    ("worktrees", "The same data in every worktree", "shop", _worktrees),
    ("pull", "Production's shape without its people", "shop", _pull),
)
