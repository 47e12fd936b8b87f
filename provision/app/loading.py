"""Finds the Flask app that `app.factory` names, as ``flask --app`` does, and says what stopped it.

It needs nothing but the standard library and the app's own Flask, and runs on any Python from 3.8 on: `serve.py` and
`serve_release.py` read it as a file, in the app's own virtualenv. The pytest plugin imports it.
https://flask.palletsprojects.com/en/stable/cli/#application-discovery
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple  # noqa: UP035 — for Python 3.8

OLDEST_FLASK = "1.0"
_WRAPPED = ("app", "flask_app", "wsgi_app")
_DEPTH = 5  # wrappers around wrappers
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# A variable that is read without a value to fall back on.
_READ = re.compile(r"""(?:environ\[|environ\.get\(|getenv\()\s*["']([A-Za-z_]\w*)["']\s*[\])]""")
_READ_ALL = re.compile(r"""(?:environ\[|environ\.get\(|getenv\()\s*["']([A-Za-z_]\w*)["']""")
_LINE_CHARACTERS = 600


class NotAnApp(Exception):
    """What `app.factory` names does not give a Flask app.

    `kind`: ``shape``: another way to write it is needed; ``server``: the app needs a server of its own;
    ``module``: the module is not there; ``old``: this Flask is too old.
    """

    def __init__(self, text: str, kind: str = "shape") -> None:
        super().__init__(text)
        self.kind = kind


class App(NamedTuple):
    """An app, and what is served for it: itself, or what it is wrapped in where that is a WSGI app."""

    flask: Any
    wsgi: Any


Call = Callable[[Any, str], Any]


def flask_of_the_app() -> Any:
    """The app's own Flask. Raises NotAnApp: it is too old; and what its import raises."""
    import flask
    import flask.cli

    if not hasattr(flask.cli, "load_dotenv"):
        version = vars(flask).get("__version__", "of this version")
        raise NotAnApp(
            f"Flask {version} is installed, and the oldest Flask that is served is {OLDEST_FLASK}.", "old"
        )
    return flask


def load(named: str, folder: Path, call: Call | None = None) -> App:
    """The app that a name leads to: ``module``, ``module:app``, ``module:create_app``, ``module:create_app('dev')``.

    `folder`: where the app is; it stands on `sys.path`.
    `call`: calls a factory that is named without brackets; by default, without arguments.

    Raises NotAnApp, and what the app itself raises.
    """
    flask_of_the_app()
    path, colon, expression = _parts(named)
    if colon and not expression.strip():
        raise NotAnApp(f"{named} names no app behind its colon.")
    module = _imported(path, folder)
    if not colon:
        return _best(module, path, call or _without_arguments)
    return _expressed(module, path, expression.strip(), call or _without_arguments)


def _parts(named: str) -> tuple[str, str, str]:
    """Module or file, colon, and what is in it; a drive's colon belongs to the path, as with Flask."""
    parts = re.split(r":(?![\\/])", named, maxsplit=1)
    return parts[0].strip(), ":" if len(parts) > 1 else "", parts[1] if len(parts) > 1 else ""


def _imported(path: str, folder: Path) -> Any:
    if path.endswith(".py") or os.sep in path:
        name, file = _of_file(folder / path)
        beside = file.with_suffix("")
        if (beside / "__init__.py").is_file():
            return _script(f"{name.replace('.', '_')}_py", file)
    else:
        name = path
    try:
        __import__(name)
    except ModuleNotFoundError as missing:
        if missing.name and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise NotAnApp(f"There is no module {missing.name} in {folder}.", "module") from None
        raise
    except ValueError:
        if name:
            raise
        raise NotAnApp("It names no module.", "module") from None
    return sys.modules[name]


def _of_file(path: Path) -> tuple[str, Path]:
    """The module that a file is, and the file; the folder of its topmost package comes onto `sys.path`."""
    file = path.resolve()
    top = file.with_suffix("") if file.suffix == ".py" else file
    if top.name == "__init__":
        top = top.parent
    names = [top.name]
    top = top.parent
    while (top / "__init__.py").is_file():
        names.append(top.name)
        top = top.parent
    if str(top) not in sys.path:
        sys.path.insert(0, str(top))
    return ".".join(reversed(names)), file


def _script(name: str, file: Path) -> Any:
    """Import a file under a name of its own: a package beside it has the file's name, and Python prefers that."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise NotAnApp(f"There is no file {file}.", "module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _best(module: Any, path: str, call: Call) -> App:
    """The app of a module that no name was given for, in Flask's order."""
    import flask

    for name in ("app", "application"):
        app = _unwrapped(getattr(module, name, None))
        if app is not None:
            return app
    apps = {id(value): value for value in vars(module).values() if isinstance(value, flask.Flask)}
    if len(apps) == 1:
        return _given(next(iter(apps.values())), path)
    if apps:
        raise NotAnApp(f"{path} has several Flask apps. Name one of them: {path}:name")
    for name in ("create_app", "make_app"):
        factory = getattr(module, name, None)
        if inspect.isfunction(factory):
            return _given(call(factory, name), f"{path}:{name}")
    raise NotAnApp(f"{path} has no Flask app, and no factory that is called create_app or make_app.")


def _expressed(module: Any, path: str, expression: str, call: Call) -> App:
    """The app that a name or a call leads to."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise NotAnApp(f"{expression!r} is neither a name nor the call of a factory.") from None
    written = tree.func if isinstance(tree, ast.Call) else tree
    attribute, name = module, ""
    for name in _dotted(written, expression):
        try:
            attribute = getattr(attribute, name)
        except AttributeError:
            raise NotAnApp(f"There is no {name} in {path}.") from None
    if isinstance(tree, ast.Call):
        arguments, named = _literals(tree, expression)
        made = called(attribute, name, *arguments, **named)
        return _given(made, f"{path}:{expression}")
    app = _unwrapped(attribute)
    if app is not None:
        return app
    if callable(attribute) and not _has_server(attribute):
        return _given(call(attribute, name), f"{path}:{name}")
    return _given(attribute, f"{path}:{name}")


def _dotted(written: ast.expr, expression: str) -> list[str]:
    if isinstance(written, ast.Name):
        return [written.id]
    if isinstance(written, ast.Attribute):
        return [*_dotted(written.value, expression), written.attr]
    raise NotAnApp(f"{expression!r} is neither a name nor the call of a factory.")


def _literals(tree: ast.Call, expression: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        named = {str(each.arg): ast.literal_eval(each.value) for each in tree.keywords if each.arg}
        return [ast.literal_eval(each) for each in tree.args], named
    except ValueError:
        raise NotAnApp(
            f"In {expression!r}, an argument is not a literal: text, a number, True or None."
        ) from None


def _without_arguments(factory: Any, name: str) -> Any:
    return called(factory, name)


def called(factory: Any, name: str, /, *arguments: Any, **named: Any) -> Any:
    """What a factory returns. Raises NotAnApp: it does not take these arguments; and what it raises itself."""
    try:
        return factory(*arguments, **named)
    except TypeError as error:
        if _raised_within(error, factory):
            raise
        raise NotAnApp(f"TypeError: {error}. It is defined as {name}{_signature(factory)}.") from None


def _raised_within(error: BaseException, factory: Any) -> bool:
    """Whether a call got as far as the factory's own code."""
    trace = error.__traceback__
    code = getattr(factory, "__code__", None)
    depth = 0
    while trace is not None:
        if code is not None and trace.tb_frame.f_code is code:
            return True
        trace, depth = trace.tb_next, depth + 1
    return code is None and depth > 1


def _signature(factory: Any) -> str:
    try:
        return str(inspect.signature(factory))
    except (TypeError, ValueError):
        return "(…)"


def _given(found: Any, name: str) -> App:
    app = _unwrapped(found)
    if app is not None:
        return app
    if _has_server(found):
        raise NotAnApp(
            f"{name} gives {_kind(found)}, which brings a server of its own and is not a Flask app.", "server"
        )
    raise NotAnApp(f"{name} gives {_kind(found)}, not a Flask app.")


def _kind(found: Any) -> str:
    return "None" if found is None else f"a {type(found).__module__}.{type(found).__qualname__}"


def _unwrapped(found: Any) -> App | None:
    """The app, from what it is wrapped in, known by its attributes alone: connexion.FlaskApp, werkzeug's ProxyFix."""
    import flask

    if isinstance(found, flask.Flask):
        return App(found, found)
    if found is None or inspect.ismodule(found) or inspect.isclass(found) or inspect.isfunction(found):
        return None
    inner = found
    for _ in range(_DEPTH):
        inner = next(_wrapped_in(inner), None)
        if isinstance(inner, flask.Flask):
            if _is_asgi(found):
                raise NotAnApp(
                    f"{_kind(found)} around it is an ASGI app, which needs a server of its own.", "server"
                )
            return App(inner, found if callable(found) else inner)
        if inner is None:
            break
    return None


def _wrapped_in(wrapper: Any) -> Iterator[Any]:
    for name in _WRAPPED:
        try:
            inner = getattr(wrapper, name, None)
        except Exception:  # noqa: BLE001, S112 — an attribute that fails is not the app
            continue
        if inner is not None and not inspect.isroutine(inner):
            yield inner


def _is_asgi(found: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(type(found), "__call__", None))  # noqa: B004


def _has_server(found: Any) -> bool:
    """As Flask-SocketIO's SocketIO, or a server's own object."""
    return (
        not inspect.isfunction(found) and hasattr(found, "server") and callable(getattr(found, "run", None))
    )


def own_server(app: Any) -> str:
    """What an app's Flask-SocketIO works with, where Werkzeug's server can't give it; empty where it can."""
    mode = getattr(getattr(app, "extensions", {}).get("socketio"), "async_mode", None)
    return mode if isinstance(mode, str) and mode not in ("threading", "") else ""


def last_line(error: BaseException) -> str:
    """An exception as the last line of its traceback has it, its message in one line."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = " ".join(str(error).split())[:_LINE_CHARACTERS]
    except Exception:  # noqa: BLE001 — an app's own class may do anything
        text = ""
    if isinstance(error, NotAnApp):
        return text
    return f"{name}: {text}" if text else name


def reason(error: BaseException, folder: Path) -> dict[str, Any]:
    """Why an app did not start, for `provision.app.failures`, which words the remedy.

    ``line``: the last line of the traceback. ``kind``: what it comes from. ``names``: variables or packages.
    """
    line = last_line(error)
    names: list[str] = []
    if isinstance(error, NotAnApp):
        kind = error.kind
    elif any(_is_refused(each) for each in _chain(error)):
        kind = "auth"
    elif any(type(each).__name__ == "ServerSelectionTimeoutError" for each in _chain(error)):
        kind = "address"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        kind, names = "package", [error.name.partition(".")[0]]
    else:
        names = _unset(error, line, folder)
        kind = "environment" if names else "other"
    return {"line": line, "kind": kind, "names": names}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < _DEPTH:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _is_refused(error: BaseException) -> bool:
    """PyMongo's Unauthorized and AuthenticationFailed."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OperationFailure" in names and getattr(error, "code", None) in (13, 18)


def _unset(error: BaseException, line: str, folder: Path) -> list[str]:
    """The variables of the environment that the app wants and does not have, where that is what stopped it."""
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    if isinstance(key, str) and _VARIABLE.fullmatch(key) and key not in os.environ:
        return [key]
    texts = list(_sources(error, folder))
    every = {name for text in texts for name in _READ_ALL.findall(text)}
    named = sorted(name for name in every - set(os.environ) if re.search(rf"\b{re.escape(name)}\b", line))
    if named or not re.search(r"\bNone(Type)?\b", line):
        return named
    return sorted({name for text in texts for name in _READ.findall(text)} - set(os.environ))[:5]


def _sources(error: BaseException, folder: Path) -> Iterator[str]:
    """The text of the app's own modules: those that were imported, and those that the import failed in."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    trace = error.__traceback__
    while trace is not None:
        files.add(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    for file in files:
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file)
        if folder not in path.parents or "site-packages" in path.parts:
            continue
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
