"""Launches the app by its factory, with the database's address in its environment."""

from __future__ import annotations

import contextlib
import errno
import http.client
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from provision.app import failures, seeding
from provision.app.app_process import AppProcess, name_of
from provision.app.dotenv_files import overridden
from provision.app.runs import Run, told_of_deaths
from provision.backends.processes import port_holder
from provision.core import output
from provision.core.dataclass import dataclass
from provision.core.errors import INTERRUPTED, ProvisionError
from provision.core.signals import held, once
from provision.core.steps import Reporter
from provision.data.program import AppProgram
from provision.deployments import app_environment, assembly, setup_steps
from provision.deployments.deployment import Deployment
from provision.deployments.events import Event
from provision.settings.loading import Loaded
from provision.settings.schema import AppSettings

_RELOAD_STATUS = 3  # Werkzeug's: start me again, code has changed
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 1.0
_REST_SECONDS = 1.0  # an answer may have no end
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Secret:
    """Flask's SECRET_KEY: where the app finds its file, and what it is."""

    file: str
    key: str

    @classmethod
    def of(cls, file: Path) -> Secret:
        """The one in a file of mode 0600; empty where `setup` has not made it yet."""
        try:
            return cls(str(file), file.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return cls(str(file), "")


@dataclass(frozen=True)
class Database:
    """Where an app finds its database: what the templates of `app.env` may use."""

    uri: str  # the whole connection string, with the database's name
    host: str  # name or address of the first node that clients connect to
    port: int
    database: str
    username: str  # empty where the deployment has no authentication
    password: str  # empty where the deployment has no authentication
    secret_key_file: str  # file that holds Flask's SECRET_KEY
    secret_key: str  # what is in that file


def render_environment(templates: Mapping[str, str | None], database: Database) -> dict[str, str | None]:
    """Render the app's environment. Pure.

    A variable is None where its template is None: the app must not have it, not even from the environment that it
    inherits, where it may name another database. Where its template renders to nothing it is empty, as a username is
    without authentication: an app then has no user, where it would fall back on a default of its own.
    Raises ProvisionError: a template uses an undefined name or is not valid.
    """
    import jinja2

    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 — no HTML
    known = vars(database)
    rendered: dict[str, str | None] = {}
    for name, template in templates.items():
        if template is None:
            rendered[name] = None
            continue
        try:
            value = jinja.from_string(template).render(known)
        except jinja2.TemplateError as error:
            raise ProvisionError(
                f"rendering the app's environment variable {name}",
                f"app.env.{name}: {error.message or error}.",
                f"It may use {', '.join(known)}.",
            ) from None
        rendered[name] = value
    return rendered


class Progress(Protocol):
    """What is told how far an `up` has come."""

    def say(self, text: str) -> None:
        """What is going on."""

    def reached(self, event: Event) -> None:
        """What was reached."""


Watch = Callable[[Deployment], contextlib.AbstractContextManager[Progress]]


def run(
    loaded: Loaded,
    name: str,
    keep: bool,
    say: Callable[[str], None],
    reporter: Reporter,
    watch: Watch,
    begins: Callable[[Deployment, Callable[[str], None]], None] = lambda _, __: None,
) -> None:
    """Set up what is missing, start the deployment, and serve the app until it ends or is interrupted.

    `begins`: puts the data in place that the deployment begins with.
    """
    settings = loaded.settings.app
    folder = directory(loaded)
    deployment = assembly.deployment(loaded, name)
    native = deployment.backend.capabilities.keeps_folders
    changed = setup_steps.ensure_for_run(loaded, reporter, native, name)
    python = _python(loaded, say)
    if changed or python != Path(sys.executable):  # that may have taken a minute
        deployment = assembly.deployment(loaded, name)

    @contextlib.contextmanager
    def start(reloaded: bool) -> Iterator[AppProcess]:
        app: AppProcess | None = None
        try:
            with held():
                app = AppProcess(python, folder, settings, listener, reloaded, _unwatched(loaded))
            yield app
        finally:
            if app is not None:
                app.end()

    def stop() -> None:
        with output.briefly():
            deployment.down(say)

    with _listener(settings) as listener, once(), contextlib.ExitStack() as cleanup:
        run = Run(loaded.paths, name, say)
        cleanup.callback(lambda: run.ends(stop, keep))
        app = cleanup.enter_context(start(reloaded=False))
        begins(deployment, say)
        _up(deployment, say, watch, lambda: run.started(keep))
        deployment.ensure_secrets()
        uri = deployment.uri(settings.database, user="app")
        given = variables(loaded, deployment, uri, Secret.of(loaded.paths.secret_key), settings.debug)
        if settings.command:
            given = {"PORT": str(settings.port), **given}  # the name under which most servers read it
        _tell_of_dotenv_files(folder, given, say)
        seeding.on_run(loaded, deployment, AppProgram(python, folder, given), say)
        if settings.command:
            listener.close()  # the command opens the port itself
        app.let_in(given)
        say(_ready_line(app, settings))
        with told_of_deaths(deployment, say):
            status, reason = app.process.wait(), app.reason()
            while status == _RELOAD_STATUS and not settings.command and not (reason or {}).get("exits"):
                with start(reloaded=True) as again:
                    again.let_in(given)
                    status, reason = again.process.wait(), again.reason()
    if status == -signal.SIGINT:
        raise SystemExit(INTERRUPTED)
    if status != 0:
        raise failures.failed(
            f"running {name_of(settings)}",
            f"The app ended with status {status}; what it printed is above. MongoDB is as it was before.",
            reason,
            failures.Setting(name, loaded.deployment(name).has_auth, settings.requirements, _secrets(given)),
        )


def _secrets(given: Mapping[str, str | None]) -> tuple[str, ...]:
    """What no message may contain: longest first, so that a connection string goes before the password in it."""
    names = ("SECRET_KEY", "MONGODB_PASSWORD", "MONGODB_URI")
    found = {value for name in names if (value := given.get(name)) and ("@" in value or "URI" not in name)}
    return tuple(sorted(found, key=len, reverse=True))


def _unwatched(loaded: Loaded) -> list[Path]:
    """The directories of the project in which the tool itself works: no change there restarts an app."""
    paths = loaded.paths
    return [paths.data, paths.log, paths.state, paths.env]


def _tell_of_dotenv_files(folder: Path, given: Mapping[str, str | None], say: Callable[[str], None]) -> None:
    for file, names in overridden(folder, given).items():
        verb, those = ("is", "the one") if len(names) == 1 else ("are", "those")
        say(f"The app's {file} sets {', '.join(names)}; {those} of this deployment {verb} used (app.env).")


def _up(
    deployment: Deployment, say: Callable[[str], None], watch: Watch, started: Callable[[], None]
) -> None:
    """Start the deployment; that of several nodes takes long enough to be watched."""
    if len(deployment.topology.nodes) == 1:
        done = deployment.up(say, started=started)
    else:
        with watch(deployment) as progress:
            done = deployment.up(progress.say, progress.reached, started=started)
    for notice in done.notices:
        say(notice)


def directory(loaded: Loaded) -> Path:
    """The directory that the app is imported from.

    Raises ProvisionError: there is none.
    """
    path = loaded.paths.under_root(loaded.settings.app.path)
    if not path.is_dir():
        raise ProvisionError(
            f"running {name_of(loaded.settings.app)}",
            f"app.path is {path}, which is not a directory.",
            "Set app.path in invoke.yaml to the directory that the app is imported from.",
        )
    return path


def _python(loaded: Loaded, say: Callable[[str], None]) -> Path:
    """The interpreter with what the app needs: env/ for flaskbook, a virtualenv of its own for any other."""
    return app_environment.ensure(loaded, say)


def program(loaded: Loaded, deployment: Deployment, say: Callable[[str], None]) -> AppProgram:
    """How other programs of the app run on a deployment: as `run` runs the app itself.

    Its virtualenv is made where it is missing. `flask` finds the app by itself.
    Raises ProvisionError: the virtualenv can't be made, or there is no such directory.
    """
    settings = loaded.settings.app
    folder, python = directory(loaded), _python(loaded, say)
    uri = deployment.uri(settings.database, user="app")
    given = variables(loaded, deployment, uri, Secret.of(loaded.paths.secret_key), settings.debug)
    if not settings.command:
        given = {"FLASK_APP": settings.factory, **given}
    return AppProgram(python, folder, given)


def variables(
    loaded: Loaded, deployment: Deployment, uri: str, secret: Secret, debug: bool
) -> dict[str, str | None]:
    """What the app's environment has (variable → text) and must not have (variable → None)."""
    settings = loaded.settings.app
    host, port = deployment.backend.address(deployment.topology.seeds[0])
    secrets = deployment.secrets()
    database = Database(
        uri=uri,
        host=host,
        port=port,
        database=settings.database,
        username=secrets.app.username if secrets else "",
        password=secrets.app.password if secrets else "",
        secret_key_file=secret.file,
        secret_key=secret.key,
    )
    return {"FLASK_DEBUG": "1" if debug else "0", **render_environment(settings.env, database)}


@contextlib.contextmanager
def _listener(settings: AppSettings) -> Iterator[socket.socket]:
    """The socket the app serves, opened here: a taken port is found before anything has been started."""
    doing = f"serving {name_of(settings)} on {settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:  # an unknown name; or a kind of address, IPv6, that this machine does without
        raise _not_ours(doing, settings, error) from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise _refused(doing, settings, error) from None
        listener.listen(128)
        yield listener


def _refused(doing: str, settings: AppSettings, error: OSError) -> ProvisionError:
    """Why the app can't listen at its address: the reason of this one, and its remedy."""
    other = max(settings.port, 1023) + 1
    if error.errno == errno.EADDRNOTAVAIL:
        return _not_ours(doing, settings, error)
    if error.errno == errno.EACCES:
        return ProvisionError(
            doing,
            f"The system keeps port {settings.port} for root: {error.strerror}.",
            f"Use a port above 1023: invoke run --port {other}",
        )
    holder = port_holder(settings.host, settings.port)
    return ProvisionError(
        doing,
        f"Port {settings.port} is held by {holder}, which will not be touched."
        if holder
        else f"{error.strerror}.",
        f"Stop it, or use another port: invoke run --port {other}",
    )


def _not_ours(doing: str, settings: AppSettings, error: OSError) -> ProvisionError:
    return ProvisionError(
        doing,
        f"{settings.host} is not an address of this machine: {error.strerror}.",
        "Set app.host to 127.0.0.1. For once: INVOKE_APP_HOST=127.0.0.1 ./invoke run",
    )


def _ready_line(app: AppProcess, settings: AppSettings) -> str:
    """Ask the app until it answers; the socket queues the question while the app is still loading."""
    name = name_of(settings)
    address = f"http://{_in_url(settings.host)}:{settings.port}/"
    deadline = time.monotonic() + _READY_SECONDS
    status, pause = None, _POLL_SECONDS
    while time.monotonic() < deadline and app.process.poll() is None:
        status = _ask(app, settings, deadline)
        if status is not None and status < http.client.INTERNAL_SERVER_ERROR:
            return f"Serving {name} at {address} (Ctrl-C ends it)"
        if status is not None and status != http.client.SERVICE_UNAVAILABLE:
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL_SECONDS)  # an app may print each question
    if app.process.poll() is not None:
        return f"{name} has ended."
    answer = (
        f"answers {status} at {settings.ready_path}"
        if status
        else f"does not answer at {settings.ready_path} yet"
    )
    return f"{name} runs at {address} but {answer} (Ctrl-C ends it)"


def _ask(app: AppProcess, settings: AppSettings, deadline: float) -> int | None:
    """One request; None if the app ended or nothing came."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    try:
        with socket.create_connection((host, settings.port), 1.0) as connection:
            connection.sendall(
                f"GET {settings.ready_path} HTTP/1.0\r\nHost: {_in_url(host)}:{settings.port}\r\n\r\n".encode()
            )
            while app.process.poll() is None and time.monotonic() < deadline:
                if select.select([connection], [], [], _POLL_SECONDS)[0]:
                    parts = connection.recv(_CHUNK_BYTES).split(maxsplit=2)
                    _read_rest(connection)
                    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
    except OSError:
        pass
    return None


def _read_rest(connection: socket.socket) -> None:
    """Read what is left of an answer. A server that is hung up on while it answers prints a traceback."""
    deadline = time.monotonic() + _REST_SECONDS
    with contextlib.suppress(OSError):
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(_CHUNK_BYTES):
                return


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
