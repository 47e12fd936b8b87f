"""The shell on a real server: Python's prompt through a pseudo-terminal, and mongosh."""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from provision.mongodb import binaries
from tests.support.capabilities import ROOT
from tests.support.processes import RUN as RUN_MARK
from tests.support.processes import free_port

PASSWORD = "s3cret/π@:"
ENCODED = "s3cret%2F%CF%80%40%3A"
SECONDS = 30

RUN = """
import sys
from pathlib import Path
from provision.core.errors import ProvisionError
from provision.cli import shell
history, expression, python = sys.argv[1], sys.argv[2], sys.argv[3] == "python"
uri, database = Path(history).with_name("uri").read_text().split()
try:
    if expression:
        raise SystemExit(shell.evaluate(uri, database, expression, python=python))
    raise SystemExit(shell.open_shell(uri, database, Path(history), python=python))
except ProvisionError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.code)
"""

# Stands in for mongosh where only our side matters: writes down what it was given, as JSON on standard output.
RECORDER = """#!{python}
import json, os, re, stat, sys
argv = sys.argv[1:]
files = [os.path.abspath(each) for each in argv if each.endswith(".js")]
files += re.findall(r'load\\("(.*)"\\)', " ".join(argv))
told = {{name: [open(name).read(), stat.S_IMODE(os.stat(name).st_mode), stat.S_IMODE(os.stat(os.path.dirname(name)).st_mode)]
        for name in files}}
print(json.dumps({{"argv": argv, "environ": dict(os.environ), "files": told}}))
sys.exit(7)
"""


@dataclass(frozen=True)
class Server:
    """A mongod with authentication, and a user who may do everything."""

    uri: str
    client: MongoClient[Any]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, mongod_binary: Path, mongod_version: str
) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("mongod"), free_port()
    command = [
        str(mongod_binary),
        "--nounixsocket",
        "--dbpath",
        str(folder),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
    ]
    command += ["--auth", "--wiredTigerCacheSizeGB", "0.25"]
    environ = {**os.environ, **binaries.environment(mongod_version)}
    uri = f"mongodb://root:{ENCODED}@127.0.0.1:{port}/?directConnection=true"
    with (folder / "out").open("w") as log, subprocess.Popen(command, stdout=log, env=environ) as mongod:
        try:
            with MongoClient("127.0.0.1", port, directConnection=True) as nobody:
                nobody.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
            with MongoClient(uri) as client:
                yield Server(uri, client)
        finally:
            mongod.kill()


@pytest.fixture
def database_name(server: Server) -> Iterator[str]:
    name = f"shell_{secrets.token_hex(6)}"
    yield name
    server.client.drop_database(name)


class Shell:
    """Runs `provision.cli.shell` in a process of its own."""

    def __init__(self, folder: Path, uri: str, database_name: str, path: str | None = None) -> None:
        self.history = folder / "state" / "history"
        self.history.parent.mkdir(mode=0o700, exist_ok=True)
        (folder / "state" / "uri").write_text(f"{uri} {database_name}")
        self._tmp = folder / "tmp"
        self._tmp.mkdir(exist_ok=True)
        self.environ = {
            "PATH": path or "",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            "TMPDIR": str(self._tmp),
            RUN_MARK: os.environ[RUN_MARK],
        }

    def command(self, expression: str = "", python: bool = False) -> list[str]:
        return [sys.executable, "-c", RUN, str(self.history), expression, "python" if python else ""]

    def run(
        self, expression: str = "", piped: str = "", python: bool = False
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(expression, python),
            env=self.environ,
            input=piped,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def left_behind(self) -> list[Path]:
        return list(self._tmp.iterdir())


@pytest.fixture
def python_shell(tmp_path: Path, server: Server, database_name: str) -> Shell:
    """A machine without mongosh: nothing is on the PATH."""
    return Shell(tmp_path, server.uri, database_name)


class Terminal:
    """A process on a pseudo-terminal, as a person has it."""

    def __init__(self, shell: Shell) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, shell.command(), shell.environ)
        self.output = ""
        self._returned: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._returned is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def at_prompt(self, text: str, prompt: str = ">>> ") -> str:
        """Type text once the prompt is there; what came before it is given."""
        before = self.wait_for(prompt)
        self.type(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> str:
        """Read on until a text comes; everything up to its end is given, and won't be found again."""
        deadline = time.monotonic() + SECONDS
        while text not in self.output:
            assert self._read(deadline), f"ended before {text!r} came, after {self.output!r}"
        before, _, self.output = self.output.partition(text)
        return before + text

    def leave(self) -> int:
        """Press Ctrl-D at the prompt and wait for the end."""
        self.at_prompt("\x04")
        return self.leave_by_itself()

    def leave_by_itself(self) -> int:
        """Wait for the end, and give the exit status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        self._returned = os.waitstatus_to_exitcode(status)
        return self._returned

    def _read(self, deadline: float) -> bool:
        """Take in what has come; False: the process has closed its side."""
        ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing more came after {self.output!r}"
        try:
            part = os.read(self._fd, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.output += re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]", "", part.decode(errors="replace"))
        return bool(part)


def test_the_prompt_teaches_and_binds_the_database(python_shell: Shell, server: Server, database_name: str):
    with Terminal(python_shell) as terminal:
        banner = terminal.at_prompt("1 + 1\n")
        assert f"database {database_name}." in banner
        assert "npm install -g mongosh" in banner
        assert "db, client, pymongo, ObjectId, datetime" in banner
        assert "s3cret" not in banner
        terminal.at_prompt(
            "db.people.insert_one({'_id': 1, 'born': datetime.datetime(1815, 12, 10)}).acknowledged\n"
        )
        terminal.wait_for("True")
        terminal.at_prompt("db.people.find()\n")
        assert "'_id': 1" in terminal.wait_for("1815")
        terminal.at_prompt("(type(client).__name__, pymongo.__name__, ObjectId.__name__)\n")
        terminal.wait_for("('MongoClient', 'pymongo', 'ObjectId')")
        assert terminal.leave() == 0
    assert server.client[database_name].people.count_documents({}) == 1


def test_a_long_cursor_is_shown_in_parts(python_shell: Shell, server: Server, database_name: str):
    server.client[database_name].numbers.insert_many([{"_id": number} for number in range(30)])
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("db.numbers.find()\n")
        shown = terminal.wait_for("first 20")
        assert "{'_id': 19}" in shown
        assert "{'_id': 20}" not in shown
        terminal.at_prompt("_\n")
        terminal.wait_for("{'_id': 29}")


def test_the_prompt_survives_errors_and_ctrl_c(python_shell: Shell):
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("db.people.find({'$no': 1}).to_list()\n")
        terminal.wait_for("OperationFailure: unknown top level operator: $no")
        terminal.at_prompt("half a line")
        terminal.wait_for("half a line")
        # The line's end wakes readline if the signal comes in the moment before it waits for input.
        terminal.type("\x03")
        terminal.type("\n")
        terminal.wait_for("KeyboardInterrupt")
        terminal.at_prompt("6 * 7\n")
        terminal.wait_for("42")
        assert terminal.leave() == 0


def test_tab_completes_names(python_shell: Shell):
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("client.list_database_n\t")
        terminal.wait_for("client.list_database_names(")


def test_the_next_prompt_remembers_the_last_ones_lines(python_shell: Shell):
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("'remember ' + 'me'\n")
        terminal.wait_for("'remember me'")
        terminal.leave()
    assert stat.S_IMODE(python_shell.history.stat().st_mode) == 0o600
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("\x10\n")  # Ctrl-P: the line before
        terminal.wait_for("'remember me'")


def test_leaving_with_a_status_gives_that_status(python_shell: Shell):
    with Terminal(python_shell) as terminal:
        terminal.at_prompt("raise SystemExit(5)\n")
        assert terminal.leave_by_itself() == 5


def test_an_expressions_value_is_printed_as_extended_json(
    python_shell: Shell, server: Server, database_name: str
):
    server.client[database_name].people.insert_many([{"_id": 1, "name": "Zoë"}, {"_id": 2, "at": 2**40}])
    done = python_shell.run("db.people.find().sort('_id')")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{"_id": 1, "name": "Zoë"}, {"_id": 2, "at": 2**40}]
    assert json.loads(python_shell.run("ObjectId('6b03f33178776e47c74acaf1')").stdout) == {
        "$oid": "6b03f33178776e47c74acaf1"
    }


def test_the_result_of_a_write_is_data(python_shell: Shell):
    done = python_shell.run(
        "db.people.insert_one({'_id': 5})\ndb.people.update_one({'_id': 5}, {'$set': {'a': 1}})"
    )
    told = json.loads(done.stdout)
    assert (told["acknowledged"], told["matched_count"], told["modified_count"]) == (True, 1, 1)
    assert json.loads(python_shell.run("db.people.find_one({'_id': 6})").stdout) is None


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("nobody", "NameError: name 'nobody' is not defined"),
        ("db.people.find({'$no': 1})", "OperationFailure: unknown top level operator: $no"),
        ("db.people.insertOne({'a': 1})", "This shell speaks Python"),
        ("const people = 1", "This shell speaks Python"),
    ],
)
def test_a_wrong_expression_is_told_without_our_frames(python_shell: Shell, expression: str, told: str):
    done = python_shell.run(expression)
    assert done.returncode == 1
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "shell.py" not in done.stderr


def test_piped_input_is_run_as_a_script(python_shell: Shell, server: Server, database_name: str):
    script = "for number in range(3):\n    db.numbers.insert_one({'_id': number})\nprint('done')\ndb.numbers.find_one()\n"
    done = python_shell.run(piped=script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "done\n{'_id': 0}\n"
    assert server.client[database_name].numbers.count_documents({}) == 3


def test_a_piped_scripts_first_error_ends_it(python_shell: Shell):
    done = python_shell.run(piped="print('before')\n1 / 0\nprint('after')\n")
    assert done.returncode == 1
    assert done.stdout == "before\n"
    assert done.stderr.splitlines() == [
        '  File "<stdin>", line 2, in <module>',
        "ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(("exit_with", "status"), [("", 0), ("3", 3), ("'too bad'", 1)])
def test_a_script_may_exit_with_a_status(python_shell: Shell, exit_with: str, status: int):
    assert python_shell.run(piped=f"import sys\nsys.exit({exit_with})\n").returncode == status


@pytest.mark.parametrize("expression", ["1", ""])
def test_no_server_is_an_error_without_secrets(tmp_path: Path, expression: str):
    port = free_port()
    uri = f"mongodb://root:{ENCODED}@127.0.0.1:{port}/?directConnection=true"
    done = Shell(tmp_path, uri, "test").run(expression, piped="1")
    assert done.returncode == 1
    assert f"error: opening a shell on 127.0.0.1:{port}" in done.stderr
    assert "Connection refused" in done.stderr
    assert "invoke start" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_password_is_an_error_without_it(tmp_path: Path, server: Server):
    done = Shell(tmp_path, server.uri.replace("s3cret", "s3crets"), "test").run("1")
    assert done.returncode == 1
    assert "Authentication failed" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def recorded_shell(tmp_path: Path, server: Server, database_name: str) -> Shell:
    """A machine where a recorder is the mongosh on the PATH."""
    recorder = tmp_path / "bin" / "mongosh"
    recorder.parent.mkdir()
    recorder.write_text(RECORDER.format(python=sys.executable))
    recorder.chmod(0o755)
    return Shell(tmp_path, server.uri, database_name, path=str(recorder.parent))


@pytest.mark.parametrize(("expression", "piped"), [("db.getName()", ""), ("", 'print("hello")\n')])
def test_mongosh_gets_the_password_in_a_private_file_only(
    recorded_shell: Shell, server: Server, database_name: str, expression: str, piped: str
):
    done = recorded_shell.run(expression, piped)
    told = json.loads(done.stdout)
    assert done.returncode == 7
    assert "s3cret" not in json.dumps([told["argv"], told["environ"]])
    scripts = {Path(name).name: content for name, content in told["files"].items()}
    text, mode, folder_mode = scripts["connect.js"]
    assert (mode, folder_mode) == (0o600, 0o700)
    assert f"connect({json.dumps(server.uri)}).getSiblingDB({json.dumps(database_name)})" in text
    assert recorded_shell.left_behind() == []
    if piped:
        assert scripts["stdin.js"][0] == piped
    else:
        assert told["argv"][-2:] == ["--eval", expression]


def test_on_a_terminal_mongosh_stays_open(recorded_shell: Shell):
    with Terminal(recorded_shell) as terminal:
        assert '["--nodb", "--shell", "--file", ' in terminal.wait_for('"files"')
        assert terminal.leave_by_itself() == 7


def test_python_can_be_asked_for_where_mongosh_is(recorded_shell: Shell):
    assert recorded_shell.run("6 * 7", python=True).stdout == "42\n"
    assert recorded_shell.run(piped="print(6 * 7)", python=True).stdout == "42\n"


@pytest.fixture
def mongosh_shell(tmp_path: Path, server: Server, database_name: str) -> Shell:
    return Shell(tmp_path, server.uri, database_name, path=os.environ["PATH"])


@pytest.mark.needs("mongosh")
def test_the_real_mongosh_is_logged_in_and_on_the_database(mongosh_shell: Shell, database_name: str):
    done = mongosh_shell.run("db.getName()")
    assert (done.returncode, done.stdout.strip()) == (0, database_name)
    done = mongosh_shell.run(piped="print(db.people.insertOne({_id: 1}).insertedId)\n")
    assert (done.returncode, done.stdout.strip()) == (0, "1")
    assert mongosh_shell.run("db.people.nonsense()").returncode == 1
    assert mongosh_shell.run(piped="db.people.nonsense()\n").returncode == 1
    assert mongosh_shell.left_behind() == []


@pytest.mark.needs("mongosh")
def test_the_real_mongosh_prompts_on_a_terminal(mongosh_shell: Shell, database_name: str):
    with Terminal(mongosh_shell) as terminal:
        terminal.at_prompt("6 * 7\r", f"{database_name}> ")
        terminal.wait_for("\n42")
        commands = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children")
        if commands.exists():
            for child in commands.read_text().split():
                assert "s3cret" not in Path(f"/proc/{child}/cmdline").read_text()
        terminal.at_prompt("exit\r", f"{database_name}> ")
        assert terminal.leave_by_itself() == 0
    assert mongosh_shell.left_behind() == []
