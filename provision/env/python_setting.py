"""Read `env.python` from the settings files without a YAML library: env/ is made before there is one."""

from __future__ import annotations

import re

from provision.env.settings_files import file_at, places
from provision.env.virtualenv import BootstrapError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any


def read_env_python(root: Path, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """Return `env.python` and where it was set, from the layers of the settings that can hold it.

    INVOKE_ENV_PYTHON first, then the settings files, the nearest first (`settings_files`). A layer that has the key
    decides, even with null. A file in Python, or one that `-f` names, is not looked at.

    Raises BootstrapError: a file holds the key in a form this reader does not know.
    """
    if "INVOKE_ENV_PYTHON" in environment:
        return environment["INVOKE_ENV_PYTHON"] or None, "INVOKE_ENV_PYTHON"
    for place in reversed(places(root, environment)):
        file = file_at(place)
        if file is None or file.suffix == ".py":
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # env/ is made first: then every task says what is wrong with it
        try:
            found, value = find_env_python(text)
        except ValueError as error:
            raise BootstrapError(
                f"reading env.python in {file}",
                str(error),
                "write it on one line of its own, as in   python: '3.12'",
            ) from None
        if found:
            return value, str(file)
    return None, "default"


def find_env_python(text: str) -> tuple[bool, str | None]:
    """Find `env: python:` in a YAML text without a YAML library.

    Reads block and flow mappings, plain and quoted scalars, comments. A value is kept as it is written: 3.10
    is "3.10" here, though YAML calls it the number 3.1.

    Returns whether the key is there, and its value; None where it is empty or null. Raises ValueError: the
    key is there in a form not known here (an alias, a tag, a block scalar).
    """
    lines = text.lstrip("\ufeff").splitlines()
    content = [(len(line) - len(line.lstrip(" ")), line.strip(), number) for number, line in enumerate(lines)]
    content = [
        (i, s, n) for i, s, n in content if s and not s.startswith("#") and not (i == 0 and s[0] == "%")
    ]
    content = [(i, s, n) for i, s, n in content if not (i == 0 and re.match(r"(---|\.\.\.)(\s*#.*)?$", s))]
    if content and content[0][1].startswith("{"):
        return _from_flow("\n".join(lines[content[0][2] :]), ("env", "python"))
    top = _last(
        (position, rest) for position, (i, s, _) in enumerate(content) if i == 0 for rest in _key(s, "env")
    )
    if top is None:
        return False, None
    position, rest = top
    if rest.startswith("{"):
        line = lines[content[position][2]]
        return _from_flow(
            "\n".join([line[line.index("{") :], *lines[content[position][2] + 1 :]]), ("python",)
        )
    if rest and not rest.startswith("#"):
        if _scalar(rest) is None:
            return False, None
        raise ValueError("`env:` is not a mapping")
    children = []
    for entry in content[position + 1 :]:
        if entry[0] == 0:
            break
        children.append(entry)
    if not children:
        return False, None
    depth = children[0][0]
    hit = _last(
        (at, rest) for at, (i, s, _) in enumerate(children) if i == depth for rest in _key(s, "python")
    )
    if hit is None:
        return False, None
    at, rest = hit
    if at + 1 < len(children) and children[at + 1][0] > depth:
        raise ValueError("its value goes on over several lines")
    return True, _scalar(rest)


def _last(found: Iterable[tuple[int, str]]) -> tuple[int, str] | None:
    """Return the last of a key's places: it is the one that YAML readers take."""
    places = list(found)
    return places[-1] if places else None


def _key(line: str, name: str) -> list[str]:
    match = re.match(rf"(?:{name}|'{name}'|\"{name}\")\s*:(?:\s+(.*))?$", line, re.DOTALL)
    return [(match.group(1) or "").strip()] if match else []


_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "/": "/", " ": " ", "0": "\0", "e": "\x1b", "r": "\r"}


def _quoted(text: str) -> tuple[str, str]:
    """Split a text that begins with a quoted scalar into its value and what follows."""
    if text[0] == "'":
        match = re.match(r"'((?:[^']|'')*)'", text)
        if match is None or "\n" in match.group(1):
            raise ValueError("its quotation marks do not close on the line")
        return match.group(1).replace("''", "'"), text[match.end() :]
    match = re.match(r'"((?:[^"\\]|\\.)*)"', text)
    if match is None or "\n" in match.group(1):
        raise ValueError("its quotation marks do not close on the line")

    def unescape(found: re.Match[str]) -> str:
        code = found.group(1)
        if code[0] in "xuU" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise ValueError(f"\\{code} is not an escape")
        return _ESCAPES[code]

    value = re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", unescape, match.group(1))
    return value, text[match.end() :]


def _scalar(text: str) -> str | None:
    if text[:1] in {"'", '"'}:
        value, after = _quoted(text)
        if after.strip() and not re.match(r"\s+#", after):
            raise ValueError(f"{after.strip()} follows the closing quotation mark")
        return value or None
    if text[:1] in set("&*!|>[{@`%?") or text.startswith("- "):
        raise ValueError(f"{text} is neither plain nor quoted text")
    plain = re.sub(r"(^|\s+)#.*$", "", text)
    return None if plain in {"", "~", "null", "Null", "NULL"} else plain


def _from_flow(text: str, keys: tuple[str, ...]) -> tuple[bool, str | None]:
    value, _ = _flow(text)
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    if isinstance(value, (dict, list)):
        raise ValueError("its value is not text")
    return True, value


def _flow(text: str) -> tuple[Any, str]:
    """Split a text into the flow collection or scalar it begins with and what follows."""
    text = _skip(text)
    if text[:1] in {"{", "["}:
        mapping, closing = text[0] == "{", "}" if text[0] == "{" else "]"
        found: dict[Any, Any] = {}
        text = _skip(text[1:])
        while not text.startswith(closing):
            if not text:
                raise ValueError(f"a {closing} is missing")
            key, text = _flow(text)
            text = _skip(text)
            value = None
            if text.startswith(":"):
                value, text = _flow(text[1:])
                text = _skip(text)
            found[key if isinstance(key, str) else len(found)] = value if mapping else key
            if text.startswith(","):
                text = _skip(text[1:])
            elif not text.startswith(closing):
                raise ValueError(
                    f"a comma or {closing} is missing before {text.splitlines()[0] if text else 'the end'}"
                )
        return (found if mapping else list(found.values())), text[1:]
    if text[:1] in {"'", '"'}:
        value, text = _quoted(text)
        return value or None, text
    match = re.match(r"(?:[^,\[\]{}:#\n]|:(?=[^\s,\[\]{}])|(?<!\s)#)*", text)
    plain = match.group(0) if match else ""
    value = plain.strip()
    if value[:1] in set("&*!|>@`%?"):
        raise ValueError(f"{value} is neither plain nor quoted text")
    return (None if value in {"", "~", "null", "Null", "NULL"} else value), text[len(plain) :]


def _skip(text: str) -> str:
    """Drop white space, line ends and comments."""
    return re.sub(r"^(?:\s+|#[^\n]*)*", "", text)
