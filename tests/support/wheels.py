"""Small packages, and a build backend that needs nothing from an index: real installs without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

BUILD_SYSTEM = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = '''\
"""Builds the project that it lies in: an editable one is a file that names its folder."""
import os, re, zipfile


def _project():
    with open("pyproject.toml") as file:
        text = file.read()
    name = re.search(r'name *= *["\\'](.+?)["\\']', text).group(1)
    listed = re.search(r"(?m)^dependencies *= *\\[([^\\]]*)\\]", text)
    return name, re.findall(r'["\\'](.+?)["\\']', listed.group(1) if listed else ""), re.search(
        r'requires-python *= *"(.+?)"', text)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if os.path.exists("broken"):
        raise SystemExit("shop.c:7: error: cannot find libshop.h")
    name, requires, python = _project()
    info = name + "-1.0.dist-info/"
    file = name + "-1.0-py3-none-any.whl"
    needs = "".join("Requires-Dist: %s\\n" % each for each in requires)
    needs += "Requires-Python: %s\\n" % python.group(1) if python else ""
    with zipfile.ZipFile(os.path.join(wheel_directory, file), "w") as made:
        made.writestr(name + ".pth", os.path.abspath("src" if os.path.isdir("src") else ".") + "\\n")
        made.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: %s\\nVersion: 1.0\\n%s" % (name, needs))
        made.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        made.writestr(info + "RECORD", "")
    return file


build_wheel = build_editable
'''


def make(
    folder: Path,
    name: str,
    version: str = "1.0",
    requires: Sequence[str] = (),
    modules: Mapping[str, str] | None = None,
) -> str:
    """Make a wheel with a module of its name, or with these.

    Returns: Its hash, as requirements name it: ``sha256:…``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        **(modules or {f"{name}.py": f'version = "{version}"\n'}),
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {each}\n" for each in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{file},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
