"""Requirements files, as pip and uv read them: how they are encoded, what they include, which projects they name.

Follows https://pip.pypa.io/en/stable/reference/requirements-file-format/. Standard library only.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The longer ones first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_INCLUDE = re.compile(r"^(\s*(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-r)|(?<=-c)))([^\s#]+)(.*)$")
_EDITABLE = re.compile(r"(?:-e|--editable)[\s=]+(.+)")
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def decoded(content: bytes) -> str:
    """The text of a requirements file: by its byte order mark, its coding line, UTF-8, else Latin-1; lines end in LF."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, "replace")
            break
    else:
        text = _unmarked(content)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(content: bytes) -> str:
    for line in content.split(b"\n")[:2]:
        named = re.match(rb"\s*#.*?coding[:=]\s*([-\w.]+)", line)
        if named:
            try:
                return content.decode(named.group(1).decode("ascii"))
            except (LookupError, UnicodeDecodeError):
                break
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def logical_lines(text: str) -> Iterator[str]:
    """What stands in a requirements file: without comments, continued lines in one."""
    for line in text.replace("\\\n", " ").splitlines():
        bare = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if bare:
            yield bare


def included(file: Path, text: str) -> Iterator[Path]:
    """The files on this machine that a requirements file includes by -r or -c: they count from its own folder."""
    for line in logical_lines(text):
        found = _INCLUDE.match(line)
        if found and "://" not in found.group(2):
            yield (file.parent / found.group(2)).resolve()


def all_files(file: Path) -> tuple[Path, ...]:
    """A requirements file and all that it includes, each once; the ones that are missing, too."""
    seen: list[Path] = []
    waiting = [file]
    while waiting:
        each = waiting.pop(0)
        if each not in seen:
            seen.append(each)
            if each.is_file():
                waiting += included(each, decoded(each.read_bytes()))
    return tuple(seen)


def local_projects(text: str, folder: Path) -> tuple[Path, ...]:
    """The folders on this machine that requirements name: `-e .`, `./lib`, `lib @ file:///…`.

    `folder`: what relative ones count from: where the installer runs.
    """
    found = []
    for line in logical_lines(text):
        editable = _EDITABLE.match(line)
        target = editable.group(1) if editable else line
        if not editable and " @ " in target:
            target = target.split(" @ ", 1)[1].strip()
        elif not editable and not target.startswith((".", "/", "file:")):
            continue
        target = re.split(r"\s+;|\s+--|#", target)[0].strip().strip("\"'")
        if target.startswith("file:"):
            target = unquote(urlsplit(target).path)
        elif "://" in target or re.match(r"(git|hg|svn|bzr)\+", target):
            continue
        place = (folder / re.sub(r"\[[^\]]*\]$", "", target)).resolve()
        if place.is_dir():
            found.append(place)
    return tuple(dict.fromkeys(found))


def project_files(folder: Path) -> tuple[Path, ...]:
    """The files that say what a project needs: those there are, with what its setup reads from beside them."""
    found = [folder / name for name in _PROJECT_FILES if (folder / name).is_file()]
    texts = [decoded(file.read_bytes()) for file in found]
    # setuptools: `dynamic` dependencies from a file, or a setup.py that reads its requirements.
    named = {name for text in texts for name in re.findall(r"[\w./-]*requirements[\w./-]*\.(?:txt|in)", text)}
    found += [folder / name for name in sorted(named) if (folder / name).is_file()]
    return tuple(found)


def plain(file: Path, into: Path) -> Path:
    """The file to give to an installer: itself, or a copy below `into` in UTF-8 with LF where one of its files isn't.

    A copy names the files that it includes by their absolute paths. What an installer reads relative to the folder
    it runs in stays as it is.
    """
    files = all_files(file)
    texts = {each: decoded(each.read_bytes()) for each in files if each.is_file()}
    if all(each.read_bytes() == text.encode() for each, text in texts.items()):
        return file
    copies = {each: into / f"{number}-{each.name}" for number, each in enumerate(texts)}
    for each, text in texts.items():
        lines = []
        for line in text.split("\n"):
            found = _INCLUDE.match(line)
            if found and "://" not in found.group(2):
                target = (each.parent / found.group(2)).resolve()
                line = f"{found.group(1)}{copies.get(target, target)}{found.group(3)}"
            lines.append(line)
        copies[each].write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return copies[file]
