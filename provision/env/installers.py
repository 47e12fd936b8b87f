"""uv and pip: what installs into a virtualenv. Standard library only; used while `env/` is built."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from provision.core.signals import held, once
from provision.core.text import redact
from provision.env.virtualenv import BootstrapError, EnvironmentSpec, Interpreter, Progress
from provision.machine.access import cache_directory, home_directory, shared_cache_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

OLDEST_UV = (0, 5, 0)
"""The first uv with all the options and variables used here is 0.4.23; older ones are left alone."""


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

        shown = show and sys.stderr.isatty()
        process: subprocess.Popen[bytes] | None = None
        with once():
            try:
                with held():
                    process = subprocess.Popen(
                        command,
                        env=dict(environment),
                        cwd=self.spec.working_directory,
                        stdin=subprocess.DEVNULL,
                        stdout=2 if shown else subprocess.PIPE,
                        stderr=None if shown else subprocess.STDOUT,
                        pass_fds=(self.lock,),
                    )
                output = process.communicate()[0] or b""
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
        text = output.decode("utf-8", "replace")
        if process.returncode:
            lines = [line.rstrip() for line in text.splitlines() if line.strip()][-12:]
            told = "its own words are above" if shown else "\n".join(lines)
            raise _ToolError(f"{Path(command[0]).name} ended with exit code {process.returncode}: {told}")
        return text


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
        names = sorted(dropped)
        if names:
            self._run("pip", "uninstall", *target, *names)
        arguments = ["--require-hashes"] if spec.require_hashes else []
        for file in spec.requirements:
            arguments += ["-r", str(file)]
        self._run("pip", "install", *target, *arguments, show=True)

    def _run(self, *arguments: str, show: bool = False) -> None:
        variables = uv_variables(os.environ)
        if self.offline:
            variables["UV_OFFLINE"] = "1"
        self.runner.run([self.program, *arguments], variables, show=show)


@dataclass(frozen=True)
class Pip:
    runner: Runner
    last_resort: bool
    name: str = "pip"

    def make_virtualenv(self, python: Interpreter) -> None:
        if not python.ensurepip:
            raise _ToolError(f"{python.executable} has no ensurepip, which venv needs to install pip")
        self._run(python.executable, "-I", "-m", "venv", str(self.runner.spec.path))

    def install(self, dropped: Iterable[str]) -> None:
        spec = self.runner.spec
        python = str(spec.interpreter)
        if not list(spec.path.glob("lib/python3*/site-packages/pip/__main__.py")):
            self._run(python, "-I", "-m", "ensurepip")
        names = sorted(dropped)
        if names:
            self._run(python, "-I", "-m", "pip", "uninstall", "--yes", *names)
        arguments = ["--require-hashes"] if spec.require_hashes else []
        for file in spec.requirements:
            arguments += ["-r", str(file)]
        self._run(python, "-I", "-m", "pip", "install", *arguments, show=True)

    def _run(self, *command: str, show: bool = False) -> None:
        variables = pip_variables(os.environ)
        if self.last_resort:
            variables.setdefault("PIP_RETRIES", "1")  # uv has tried the same index already
        self.runner.run(command, variables, show=show)


def available(runner: Runner, python: Interpreter) -> list[Uv | Pip]:
    """Return what can install, the best first."""
    uv = _find_uv() or _install_uv(runner, python)
    if uv is None:
        return [Pip(runner, last_resort=False)]
    return [Uv(runner, *uv), Uv(runner, *uv, offline=True), Pip(runner, last_resort=True)]


def first_that_works(tools: list[Uv | Pip], act: Callable[[Uv | Pip], None], doing: str) -> list[Uv | Pip]:
    """Act with the first tool that can, and return it and those after it."""
    failures: list[str] = []
    for position, tool in enumerate(tools):
        try:
            act(tool)
            return tools[position:]
        except _ToolError as failure:
            failures.append(f"{tool.name}: {failure}")
            if "No space left" in str(failure):
                break  # pip would only run into it again
            if position + 1 < len(tools):
                sys.stderr.write(f"{tool.name} failed; {_what_follows(tools[position + 1])} … ")
                sys.stderr.flush()
    raise BootstrapError(doing, "\n".join(failures), _remedy("\n".join(failures)))


def _what_follows(tool: Uv | Pip) -> str:
    if isinstance(tool, Uv) and tool.offline:
        return "trying again offline, with the packages in its cache"
    return f"trying {tool.name}"


def _remedy(output: str) -> str:
    if "No space left" in output or "ENOSPC" in output:
        return "make room on the disk (df -h . shows it) and type the same again"
    if "Read-only file system" in output or "Permission denied" in output:
        return "make the place named above writable and type the same again"
    if "ensurepip" in output:
        return (
            "install Python's venv (Debian, Ubuntu: apt install python3-venv), or uv, and type the same again"
        )
    if "hash" in output.lower():
        return (
            "the index serves other files than the ones pinned: check PIP_INDEX_URL and its like; "
            "`git status requirements*.txt` says whether the pins are as released"
        )
    return (
        "check that the package index is reachable (`python3 -m pip download --no-deps invoke` tries it); "
        "behind a mirror or proxy set PIP_INDEX_URL or HTTPS_PROXY; then type the same again"
    )


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
            arguments = ["-I", "-m", "pip", *download, "-d", temporary, "-r", str(pins)]
            variables = pip_variables(os.environ)
            try:
                runner.run([python.executable, *arguments], variables)
            except _ToolError as failure:
                if "No module named pip" not in str(failure) or not python.ensurepip:
                    raise
                runner.run([python.executable, "-I", "-m", "venv", str(folder / "venv")], variables)
                runner.run([str(folder / "venv" / "bin" / "python"), *arguments], variables)
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
        if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
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
