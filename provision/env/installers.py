"""uv and pip: what installs into a virtualenv. Standard library only; used while `env/` is built."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from provision.core.dataclass import dataclass
from provision.core.signals import held, once
from provision.core.text import redact
from provision.env.requirements_files import plain
from provision.env.virtualenv import BootstrapError, EnvironmentSpec, Interpreter, Progress, probe
from provision.machine.access import cache_directory, home_directory, shared_cache_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from provision.env.declared import Declared, Step

OLDEST_UV = (0, 5, 0)
"""The first uv with all the options and variables used here is 0.4.23; older ones are left alone."""


_TRUE = frozenset({"1", "true", "yes", "on"})


class _ToolError(Exception):
    """uv or pip ended with an error; the text is the tail of what it said."""


@dataclass(frozen=True)
class Runner:
    """Runs uv and pip for one virtualenv, holding its lock."""

    spec: EnvironmentSpec
    lock: int

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, show: bool = False) -> str:
        """Run a command to its end and return what it wrote."""
        import subprocess

        shown = _Terminal() if show and sys.stderr.isatty() else None
        process: subprocess.Popen[bytes] | None = None
        with once():
            try:
                with held():
                    process = subprocess.Popen(
                        command,
                        env=dict(environment),
                        cwd=self.spec.working_directory,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE if shown is None else shown.inner,
                        stderr=subprocess.STDOUT,
                        pass_fds=(self.lock,),
                    )
                output = (process.communicate()[0] or b"") if shown is None else shown.passed_on(process)
            except BaseException as error:
                if process is not None:
                    process.terminate()
                    try:
                        process.wait(timeout=5)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                    if process.stdout is not None:
                        process.stdout.close()
                elif isinstance(error, OSError):
                    raise _ToolError(f"{command[0]}: {error.strerror}") from None
                raise
            finally:
                if shown is not None:
                    shown.close()
        text = _plain_text(output.decode("utf-8", "replace"))
        if process.returncode:
            lines = [line.rstrip() for line in text.splitlines() if line.strip()]
            # uv says first where it installs: no reason of a failure.
            lines = [line for line in lines if not re.match(r"Using Python .* environment at", line)][-12:]
            told = "\n".join(lines)
            raise _ToolError(f"{Path(command[0]).name} ended with exit code {process.returncode}: {told}")
        return text


class _Terminal:
    """A terminal of its own for a tool that draws on one; what the tool writes is passed on, and kept to explain it."""

    def __init__(self) -> None:
        import fcntl
        import pty
        import termios

        self._outer, self.inner = pty.openpty()
        try:
            size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.inner, termios.TIOCSWINSZ, size)
        except OSError:
            pass

    def passed_on(self, process: subprocess.Popen[bytes]) -> bytes:
        """Write to stderr what a process writes, until it has ended, and return it."""
        import select

        output = b""
        while True:
            ended = process.poll() is not None
            if select.select([self._outer], [], [], 0 if ended else 0.05)[0]:
                try:
                    piece = os.read(self._outer, 65536)
                except OSError:  # Linux: the other end is closed
                    piece = b""
                if piece:
                    output += piece
                    _write(piece)
                    continue
            if ended:
                return output

    def close(self) -> None:
        os.close(self._outer)
        os.close(self.inner)


def _write(piece: bytes) -> None:
    """Write to the terminal as it is; one that was closed does not stop the work."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(sys.stderr.fileno(), view) :]
    except OSError:
        pass


def _plain_text(text: str) -> str:
    """Text without what moves a terminal's cursor and colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text).replace("\r\n", "\n")


@dataclass(frozen=True)
class Uv:
    """uv, at a path. Offline it takes packages, and what it knows of the index, from its cache alone."""

    runner: Runner
    program: str
    version: str
    offline: bool = False

    @property
    def name(self) -> str:
        return f"{self.version} offline" if self.offline else self.version

    def make_virtualenv(self, python: Interpreter) -> None:
        self._run(
            "venv", "--quiet", "--allow-existing", "--python", python.executable, str(self.runner.spec.path)
        )

    def install(self, dropped: Iterable[str]) -> None:
        spec = self.runner.spec
        target = ["--python", str(spec.interpreter)]
        if spec.declared is not None:
            install_declared(self, spec.declared)
            return
        names = sorted(dropped)
        if names:
            self._run("pip", "uninstall", *target, *names)
        arguments = ["--require-hashes"] if spec.require_hashes else []
        for file in spec.requirements:
            arguments += ["-r", str(file)]
        self._run("pip", "install", *target, *arguments, show=True)

    def add(self, *arguments: str, show: bool = False) -> None:
        """Install what `pip install` takes, in the working directory."""
        self._run("pip", "install", "--python", str(self.runner.spec.interpreter), *arguments, show=show)

    def sync(self, chosen: Sequence[str]) -> None:
        """Install what the uv.lock of the working directory pins; what else is there stays.

        `chosen`: arguments that add groups and extras to it.
        """
        arguments = ["--frozen", "--inexact", "--no-default-groups", *chosen]
        self._run("sync", *arguments, "--python", str(self.runner.spec.interpreter), show=True)

    def export(self, file: Path, chosen: Sequence[str]) -> None:
        """Write what the uv.lock of the working directory pins as a requirements file. `chosen`: as for `sync`."""
        arguments = ["--frozen", "--no-default-groups", *chosen, "--output-file", str(file)]
        self._run("export", "--quiet", *arguments, "--python", str(self.runner.spec.interpreter))

    def _run(self, *arguments: str, show: bool = False) -> None:
        variables = uv_variables(os.environ)
        variables["UV_PROJECT_ENVIRONMENT"] = str(self.runner.spec.path)
        if self.offline:
            variables["UV_OFFLINE"] = "1"
        # The variable of that name says it to a uv that does not read it, too.
        if variables.get("UV_NO_INDEX", "").lower() in _TRUE and arguments[:2] != ("pip", "uninstall"):
            arguments = (*arguments, "--no-index")
        self.runner.run([self.program, *arguments], variables, show=show)


@dataclass(frozen=True)
class Pip:
    runner: Runner
    last_resort: bool
    name: str = "pip"

    def make_virtualenv(self, python: Interpreter) -> None:
        if not python.ensurepip:
            raise _ToolError(f"{python.executable} has no ensurepip, which brings pip")
        arguments = ["--without-pip"] if python.pip else []
        self._run(python.executable, "-I", "-m", "venv", *arguments, str(self.runner.spec.path))

    def install(self, dropped: Iterable[str]) -> None:
        spec = self.runner.spec
        if spec.declared is not None:
            install_declared(self, spec.declared)
            return
        pip = self._pip()
        names = sorted(dropped)
        if names:
            self._run(*pip, "uninstall", "--yes", *names)
        arguments = ["--require-hashes"] if spec.require_hashes else []
        for file in spec.requirements:
            arguments += ["-r", str(file)]
        self._run(*pip, "install", *arguments, show=True)

    def add(self, *arguments: str, show: bool = False) -> None:
        """Install what `pip install` takes, in the working directory."""
        self._run(*self._pip(), "install", *arguments, show=show)

    def sync(self, chosen: Sequence[str]) -> None:
        raise _ToolError("pip does not read uv.lock")

    def export(self, file: Path, chosen: Sequence[str]) -> None:
        raise _ToolError("pip does not read uv.lock")

    def _pip(self) -> list[str]:
        """How the virtualenv's pip is run; it is put there first where it is missing."""
        spec = self.runner.spec
        python = str(spec.interpreter)
        if not _site_packages(spec, "pip/__main__.py"):
            found = probe(python)
            places = _site_packages(spec, "")
            if isinstance(found, Interpreter) and found.pip and len(places) == 1:
                _unpack(found.pip, places[0])
            else:
                self._run(python, "-I", "-m", "ensurepip")
        return [python, "-I", "-m", "pip"]

    def _run(self, *command: str, show: bool = False) -> None:
        variables = pip_variables(os.environ)
        if self.last_resort:
            variables.setdefault("PIP_RETRIES", "1")  # uv has tried the same index already
        self.runner.run(command, variables, show=show)


def _unpack(wheel: str, site_packages: Path) -> None:
    """Put pip from its wheel into a virtualenv. ensurepip compiles all of it, which takes longer than most requirements."""
    import shutil
    import zipfile
    import zlib

    place = site_packages / ".pip"
    try:
        shutil.rmtree(place, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
        # pip-*.dist-info, then pip, by which it is known to be there.
        for each in sorted(place.iterdir(), reverse=True):
            shutil.rmtree(site_packages / each.name, ignore_errors=True)
            each.rename(site_packages / each.name)
        place.rmdir()
    except (OSError, zipfile.BadZipFile, zlib.error) as problem:
        raise _ToolError(f"unpacking {wheel}: {problem}") from None


def lent_pip(python: Interpreter, folder: Path, run: Callable[[list[str]], object]) -> list[str]:
    """Return how pip is run with a Python that has none: from the wheel that came with it, or else from a virtualenv.

    `folder`: the virtualenv is made there, where it takes one. `run`: runs a command, and raises where that fails.
    """
    if python.pip:
        return [python.executable, "-I", f"{python.pip}/pip"]
    run([python.executable, "-I", "-m", "venv", str(folder)])
    return [str(folder / "bin" / "python"), "-I", "-m", "pip"]


def available(runner: Runner, python: Interpreter) -> list[Uv | Pip]:
    """Return what can install, the best first."""
    uv = _find_uv() or _install_uv(runner, python)
    if uv is None:
        return [Pip(runner, last_resort=False)]
    return [Uv(runner, *uv), Uv(runner, *uv, offline=True), Pip(runner, last_resort=True)]


def able(tools: list[Uv | Pip], spec: EnvironmentSpec) -> list[Uv | Pip]:
    """Return those of the tools that read what is declared.

    Raises BootstrapError: none does.
    """
    if spec.declared is None or not spec.declared.needs_uv:
        return tools
    found = [tool for tool in tools if isinstance(tool, Uv)]
    if not found:
        raise BootstrapError(
            f"installing the requirements of {spec.label}",
            f"{spec.declared.format} needs uv, and there is none: pip does not read it",
            "install uv (python3 -m pip install --user uv) and type the same again, or name a file that pip reads "
            "in app.requirements: a requirements file, pyproject.toml, setup.py",
        )
    return list(found)


def install_declared(tool: Uv | Pip, declared: Declared) -> None:
    """Install what an app's folder declares, one step after the other.

    Before Python 3.12 setuptools comes first, as `python -m venv` has it: many packages of that time import
    pkg_resources and name nothing that brings it. Later it comes where a package imports that.
    """
    import tempfile

    spec = tool.runner.spec
    python = probe(str(spec.interpreter))
    if isinstance(python, str):
        raise _ToolError(f"{spec.interpreter}: {python}")
    if python.minor < (3, 12) and not _site_packages(spec, "setuptools"):
        seed = ["--no-deps", python.setuptools] if python.setuptools else [_WITH_PKG_RESOURCES]
        tool.add(*seed)
    with tempfile.TemporaryDirectory(prefix=".requirements-", dir=spec.path) as folder:
        for number, step in enumerate(declared.steps):
            if step.synced is not None and not step.any_index:
                tool.sync(_chosen(step))
            else:
                tool.add(*_arguments(tool, step, Path(folder), number), show=True)
    if not _site_packages(spec, "pkg_resources") and _asks_for_pkg_resources(spec):
        tool.add(_WITH_PKG_RESOURCES)


_WITH_PKG_RESOURCES = "setuptools<81"


def _site_packages(spec: EnvironmentSpec, name: str) -> list[Path]:
    return list(spec.path.glob(f"lib/python3*/site-packages/{name}"))


def _asks_for_pkg_resources(spec: EnvironmentSpec) -> bool:
    """Say whether an installed module imports pkg_resources at its top and without a guard."""
    asks = re.compile(rb"(?m)^(?:import|from) pkg_resources\b")
    files = spec.path.glob("lib/python3*/site-packages/**/*.py")
    return any(asks.search(file.read_bytes()) for file in files if file.is_file())


def _arguments(tool: Uv | Pip, step: Step, folder: Path, number: int) -> list[str]:
    """Return what `pip install` is given for a step. `folder`: where files that are made for this go."""
    arguments = [] if step.dependencies else ["--no-deps"]
    if step.project is not None:
        extras = f"[{','.join(step.extras)}]" if step.extras else ""
        return [*arguments, "-e", f"{step.project}{extras}"]
    if step.file is not None:
        copies = folder / str(number)
        copies.mkdir()
        return [*arguments, "-r", str(plain(step.file, copies))]
    file = folder / f"{number}-requirements.txt"
    if step.synced is not None:
        tool.export(file, _chosen(step))
        return [*arguments, "-r", str(file)]
    file.write_text("".join(f"{line}\n" for line in step.lines), encoding="utf-8")
    return [*arguments, "-r", str(file)]


def _chosen(step: Step) -> list[str]:
    """How uv is told what of a lock is meant: the member of a workspace, groups, extras."""
    member = ("--package", step.member) if step.member else ()
    groups = (each for name in step.groups for each in ("--group", name))
    extras = (each for name in step.extras for each in ("--extra", name))
    return [*member, *groups, *extras]


@dataclass(frozen=True)
class _Failure:
    """A kind of failure, known by what the tool says, with what to do, and whether another tool may do better."""

    said: str
    remedy: str
    retry: str = "none"  # "none", "pip" (where uv has failed) or "all"


_AGAIN = "then type the same again"
_FAILURES = (
    _Failure("No space left|ENOSPC", f"make room on the disk (df -h . shows it); {_AGAIN}"),
    _Failure(
        "Read-only file system|Permission denied",
        f"make the place named above writable; {_AGAIN}",
        "all",
    ),
    _Failure(
        "ensurepip",
        f"install Python's venv (Debian, Ubuntu: apt install python3-venv), or uv; {_AGAIN}",
        "all",
    ),
    _Failure(
        "Git operation failed|git (?:fetch|clone|ls-remote|rev-parse)",
        "check the URL of the repository named above, and that this machine reaches its host and may read it "
        f"(git ls-remote URL); {_AGAIN}",
    ),
    _Failure(
        "(?i)failed to fetch|request failed|dns error|connection refused|newconnectionerror|name resolution|"
        "timed out|network was disabled|connectivity is disabled|certificate|sslerror|could not connect",
        "check that the package index is reachable (`python3 -m pip download --no-deps invoke` tries it); "
        f"behind a mirror or proxy set PIP_INDEX_URL or HTTPS_PROXY; {_AGAIN}",
        "all",
    ),
    _Failure(
        "(?i)requires-python|requires a different python|does not satisfy python|requires python",
        f"set {{python_setting}} to a Python that the project named above allows (a path or a version); {_AGAIN}",
    ),
    _Failure(
        "(?i)failed to build|build backend|metadata-generation-failed|subprocess-exited-with-error|"
        "getting requirements to build",
        "read what the build of the package named above says; it may need a compiler, a system library, or another "
        f"Python ({{python_setting}}); correct that, {_AGAIN}",
    ),
    _Failure(
        "(?i)hash mismatch|hashes are required|do not match the hashes|require-hashes|mismatch.*hash|hash.*mismatch",
        "the index serves other files than the ones pinned: check PIP_INDEX_URL and its like; "
        "`git status requirements*.txt` says whether the pins are as released",
        "all",
    ),
    _Failure(
        "(?i)no solution found|unsatisfiable|no matching distribution|resolutionimpossible|conflicting dep|"
        "could not find a version",
        f"correct the requirement named above in {{source}}: no version fits it; {_AGAIN}",
        "pip",
    ),
    _Failure(
        "(?i)invalid requirement|couldn't parse|could not open requirements|does not exist",
        f"correct what is named above in {{source}}; {_AGAIN}",
        "pip",
    ),
)
_UNKNOWN = _Failure("", f"correct what is named above; {_AGAIN}", "all")


def _failure_of(said: str) -> _Failure:
    said = " ".join(said.split())  # uv breaks its sentences into lines
    return next((each for each in _FAILURES if re.search(each.said, said)), _UNKNOWN)


def first_that_works(tools: list[Uv | Pip], act: Callable[[Uv | Pip], None], doing: str) -> list[Uv | Pip]:
    """Act with the first tool that can, and return it and those after it.

    Raises BootstrapError: none can. The reason is that of the first one: the later ones only know less.
    """
    failures: list[str] = []
    kinds: list[_Failure] = []
    spec = tools[0].runner.spec
    while tools:
        tool, rest = tools[0], tools[1:]
        try:
            act(tool)
            return tools
        except _ToolError as failure:
            kinds.append(_failure_of(str(failure)))
            failures.append(f"{tool.name}: {failure}")
        if kinds[-1].retry == "pip":
            rest = [each for each in rest if isinstance(each, Pip)]
        tools = [] if kinds[-1].retry == "none" else rest
        if tools:
            sys.stderr.write(f"{tool.name} failed; {_what_follows(tools[0])} … ")
            sys.stderr.flush()
    first = kinds[0]
    told = failures if first.retry == "all" else failures[:1]
    remedy = first.remedy.replace("{python_setting}", spec.python_setting).replace("{source}", spec.source)
    sys.stderr.write("failed\n")
    raise BootstrapError(doing, "\n".join(told), remedy)


def _what_follows(tool: Uv | Pip) -> str:
    if isinstance(tool, Uv) and tool.offline:
        return "trying again offline, with the packages in its cache"
    return f"trying {tool.name}"


def _find_uv() -> tuple[str, str] | None:
    """Return the path and "uv VERSION" of a uv on the PATH that runs and is not too old."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = Path(folder or ".") / "uv"
        if os.access(candidate, os.X_OK) and candidate.is_file():
            name = _uv_version(str(candidate.absolute()))
            if name is not None:
                return str(candidate.absolute()), name
    return None


def _uv_version(program: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode or not found or tuple(map(int, found.groups())) < OLDEST_UV:
        return None
    return found.group(0)


def _install_uv(runner: Runner, python: Interpreter) -> tuple[str, str] | None:
    """Return the uv pinned in uv.txt, fetched from the index by pip into the user's cache on first use.

    None, with a line on stderr that says why, where it cannot be downloaded: then pip alone does the work.
    """
    import tempfile
    import zipfile

    pins = Path(__file__).with_name("uv.txt")
    version = next(iter(re.findall(r"(?m)^uv==(\S+)", pins.read_text(encoding="utf-8"))))
    import platform

    cache = cache_directory(os.environ)
    program = cache / f"uv-{version}-{sys.platform}-{platform.machine()}" / "uv"
    if program.is_file() and _uv_version(str(program)):
        return str(program), f"uv {version}"
    step = Progress(f"Fetching uv {version}, once for all clones")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".uv-", dir=cache) as temporary:
            folder = Path(temporary)
            download = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
            arguments = [*download, "-d", temporary, "-r", str(pins)]
            variables = pip_variables(os.environ)
            try:
                runner.run([python.executable, "-I", "-m", "pip", *arguments], variables)
            except _ToolError as failure:
                if "No module named pip" not in str(failure) or not python.ensurepip:
                    raise
                pip = lent_pip(python, folder / "venv", lambda command: runner.run(command, variables))
                runner.run([*pip, *arguments], variables)
            wheel = next(folder.glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
                (folder / "uv").write_bytes(archive.read(member))
            (folder / "uv").chmod(0o755)
            if _uv_version(str(folder / "uv")) is None:
                raise _ToolError("it does not run on this machine")
            program.parent.mkdir(exist_ok=True)
            (folder / "uv").replace(program)
    except (_ToolError, OSError, StopIteration, zipfile.BadZipFile) as failure:
        reason = redact(
            str(failure).strip().splitlines()[-1] if str(failure).strip() else "its wheel holds no uv"
        )
        sys.stderr.write(f"not available ({reason}); pip does the work\n")
        return None
    step.done()
    return str(program), f"uv {version}"


_UV_KEPT = re.compile(
    r"UV_((DEFAULT_)?INDEX(_.*)?|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|KEYRING_PROVIDER|INSECURE_HOST|OFFLINE|"
    r"CACHE_DIR|NO_CACHE|HTTP_.*|"
    r"REQUEST_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS|LINK_MODE|CONCURRENT_.*|CONFIG_FILE|COMPILE_BYTECODE|"
    r"NO_PROGRESS|CREDENTIALS_DIR|NETRC)"
)
_PIP_DROPPED = {
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_PYTHON",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
}
_PIP_DROPPED |= {
    "PIP_EDITABLE",
    "PIP_NO_DEPS",
    "PIP_DRY_RUN",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_REPORT",
    "PIP_DEST",
}


def uv_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to run uv in.

    Of uv's own variables those are kept that say where packages come from and how they travel. uv's user and
    system configuration files hold; a project's do not, as uv runs outside any project. pip's index, which uv
    does not read, is handed on where uv has none of its own. All in variables: index URLs may carry
    passwords, and argv is for all to read.
    """
    variables = _neutral(environment)
    for name in [name for name in variables if name.startswith("UV_") and not _UV_KEPT.fullmatch(name)]:
        del variables[name]
    variables["UV_PYTHON_DOWNLOADS"] = "never"
    if cache_directory(environment) != shared_cache_directory(environment):
        # uv's own cache would lie where ours could not.
        variables.setdefault("UV_CACHE_DIR", str(cache_directory(environment) / "uv"))
    if "UV_SYSTEM_CERTS" not in variables and "UV_NATIVE_TLS" not in variables:
        variables["UV_SYSTEM_CERTS"] = "true"
        variables["UV_NATIVE_TLS"] = "true"  # its name before uv 0.11
    pip = pip_settings(environment)
    if not _uv_has_index(variables):
        if "index-url" in pip:
            variables["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            variables["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
            variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # pip's own way; hashes decide
        links = [
            link
            for link in pip.get("find-links", "").split()
            if "://" in link or Path(link).expanduser().exists()
        ]
        if links:
            variables["UV_FIND_LINKS"] = ",".join(links)
        if pip.get("no-index", "").lower() in _TRUE:
            variables["UV_NO_INDEX"] = "1"
    for option, name, separator in (
        ("cert", "SSL_CERT_FILE", None),
        ("client-cert", "SSL_CLIENT_CERT", None),
        ("trusted-host", "UV_INSECURE_HOST", " "),
        ("timeout", "UV_HTTP_TIMEOUT", None),
        ("proxy", "ALL_PROXY", None),
    ):
        if option in pip and name not in variables:
            variables[name] = separator.join(pip[option].split()) if separator else pip[option]
    return variables


def pip_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to run pip in: the user's, without what would install elsewhere or otherwise."""
    variables = {name: value for name, value in _neutral(environment).items() if name not in _PIP_DROPPED}
    variables.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    return variables


def _neutral(environment: Mapping[str, str]) -> dict[str, str]:
    dropped = {
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONPATH",
        "__PYVENV_LAUNCHER__",
    }
    return {name: value for name, value in environment.items() if name not in dropped}


def _uv_has_index(environment: Mapping[str, str]) -> bool:
    """Say whether uv was told its own indexes, by variables or by a configuration file."""
    if {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"} & set(
        environment
    ):
        return True
    home = home_directory(environment) or Path("/")
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / "uv.toml"
    named = environment.get("UV_CONFIG_FILE")
    for file in [Path(named)] if named else [user, Path("/etc/xdg/uv/uv.toml"), Path("/etc/uv/uv.toml")]:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError:
            continue
        if re.search(
            r"(?m)^\s*(\[\[\s*(pip\.)?index|index-url|extra-index-url|index\s*=|find-links|no-index)", text
        ):
            return True
    return False


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings as `pip install` reads them: files, [install] over [global], variables last.

    Follows https://pip.pypa.io/en/stable/topics/configuration/.

    Returns: Values by option name ("index-url"); a file that cannot be read counts as absent.
    """
    import configparser

    home = home_directory(environment) or Path("/")
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    files = [Path(folder) / "pip" / "pip.conf" for folder in shared.split(os.pathsep)]
    files += [Path("/etc/pip.conf"), home / ".pip" / "pip.conf"]
    if sys.platform == "darwin":
        library = Path("Library") / "Application Support" / "pip"
        files.insert(0, Path("/") / library / "pip.conf")
        user = home / library if (home / library).is_dir() else config_home / "pip"
    else:
        user = config_home / "pip"
    files += [user / "pip.conf", Path(sys.base_prefix) / "pip.conf"]
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        files = []
    elif named:
        files.append(Path(named))
    layers: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, configparser.Error):
            continue
        for section, values in layers.items():
            if parser.has_section(section):
                values.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    found = {**layers["global"], **layers["install"]}
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            found[name[len("PIP_") :].lower().replace("_", "-")] = value
    return found
