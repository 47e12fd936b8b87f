"""What an app's folder declares, read and never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision.env import declared, pipfile, poetry, requirements_files
from provision.env.declared import Declared
from provision.env.virtualenv import BootstrapError

PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask>=3"]\n'
BUILT = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'


def put(place: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def found(place: Path) -> Declared:
    there = declared.find(place)
    assert there is not None
    return there


# which of them


def test_a_folder_without_any_declares_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"app.py": "", "pyproject.toml": "[tool.ruff]\n", "setup.cfg": "[flake8]\n"})
    assert declared.find(tmp_path) is None


def test_what_counts_first_is_taken_and_the_next_one_where_that_is_missing(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "uv.lock": "version = 1\n",
            "poetry.lock": "",
            "pyproject.toml": PROJECT + BUILT + "[tool.poetry.dependencies]\nflask = '*'\n",
            "Pipfile.lock": "{}",
            "Pipfile": "",
            "requirements.txt": "flask\n",
            "requirements/dev.txt": "flask\n",
            "setup.py": "",
            "setup.cfg": "[metadata]\n",
        },
    )
    formats = []
    for gone in (
        "uv.lock", "poetry.lock", "", "Pipfile.lock", "Pipfile", "requirements.txt", "requirements/dev.txt",
        "pyproject.toml", "setup.py", "setup.cfg",
    ):  # fmt: skip
        formats.append(found(tmp_path).format)
        if gone:
            (tmp_path / gone).unlink()
        else:
            put(tmp_path, {"pyproject.toml": PROJECT})
    assert formats == [
        "uv.lock", "poetry.lock", "[tool.poetry] in pyproject.toml", "Pipfile.lock", "Pipfile", "requirements.txt",
        "requirements/dev.txt", "[project] in pyproject.toml", "setup.py", "setup.cfg",
    ]  # fmt: skip
    assert declared.find(tmp_path) is None


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["base.txt", "dev.txt", "production.txt"], "dev.txt"),
        (["base.txt", "dev.txt", "development.txt"], "base.txt"),
        (["all.txt"], "all.txt"),
        (["one.txt", "two.txt"], None),
    ],
)
def test_a_folder_of_requirements_counts_where_one_of_them_is_the_sensible_one(
    tmp_path: Path, names: list[str], taken: str | None
) -> None:
    put(tmp_path, {f"requirements/{name}": "flask\n" for name in names})
    there = declared.find(tmp_path)
    assert (there.format if there else None) == (f"requirements/{taken}" if taken else None)


def test_a_file_that_a_person_names_is_read_by_its_name(tmp_path: Path) -> None:
    put(
        tmp_path, {"requirements.txt": "flask\n", "Pipfile": "[packages]\nflask='*'\n", "needs.in": "flask\n"}
    )
    put(tmp_path, {"pyproject.toml": PROJECT + BUILT})
    assert declared.read(tmp_path / "Pipfile", tmp_path).format == "Pipfile"
    assert declared.read(tmp_path / "pyproject.toml", tmp_path).format == "[project] in pyproject.toml"
    assert declared.read(tmp_path / "needs.in", tmp_path).format == "needs.in"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("Pipfile.lock", "{", "not JSON"),
        ("poetry.lock", "[", "not TOML"),
        ("pyproject.toml", "[tool.ruff]", "neither a table project nor a table tool.poetry"),
        ("requirements.txt", "-r gone.txt", "gone.txt: No such file"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: str, why: str
) -> None:
    put(tmp_path, {name: content})
    with pytest.raises(BootstrapError, match=why) as caught:
        declared.read(tmp_path / name, tmp_path)
    assert str(tmp_path) in caught.value.cause
    assert "app.requirements" in caught.value.remedy


# what the virtualenv depends on


def test_the_project_files_behind_an_editable_requirement_count(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "requirements.txt": "-r more/base.txt\n-e .\n-e ./lib[extra]\n-e git+https://example.com/x.git\n",
            "more/base.txt": "-c ../limits.txt\n./built ; python_version > '3'\n",
            "limits.txt": "flask<4\n",
            "pyproject.toml": PROJECT,
            "lib/setup.py": "open('requirements-lib.txt')\n",
            "lib/requirements-lib.txt": "flask\n",
            "built/setup.cfg": "",
        },
    )
    names = {file.relative_to(tmp_path).as_posix() for file in found(tmp_path).files}
    assert names == {
        "requirements.txt", "more/base.txt", "limits.txt", "pyproject.toml", "lib/setup.py",
        "lib/requirements-lib.txt", "built/setup.cfg",
    }  # fmt: skip


def test_the_members_that_uv_lock_names_count(tmp_path: Path) -> None:
    lock = '[[package]]\nname = "lib"\nsource = { editable = "lib" }\n[[package]]\nname = "x"\nsource = { registry = "r" }\n'
    put(tmp_path, {"uv.lock": lock, "pyproject.toml": PROJECT, "lib/pyproject.toml": PROJECT})
    there = found(tmp_path)
    assert there.needs_uv
    assert not there.steps[0].any_index, "r is an index of its own"
    put(tmp_path, {"uv.lock": lock.replace('"r"', '"https://pypi.org/simple"')})
    assert found(tmp_path).steps[0].any_index
    assert {file.relative_to(tmp_path).as_posix() for file in there.files} == {
        "uv.lock", "pyproject.toml", "lib/pyproject.toml",
    }  # fmt: skip


# projects


@pytest.mark.parametrize(
    ("files", "installed"),
    [
        ({"pyproject.toml": PROJECT + BUILT}, True),
        ({"pyproject.toml": PROJECT, "src/shop/__init__.py": ""}, True),
        ({"pyproject.toml": PROJECT, "shop/__init__.py": "", "tests/test_it.py": ""}, True),
        ({"pyproject.toml": PROJECT, "shop/__init__.py": "", "static/x.css": ""}, False),
        ({"pyproject.toml": PROJECT, "app.py": ""}, True),
        ({"pyproject.toml": PROJECT, "app.py": "", "models.py": ""}, False),
        ({"pyproject.toml": PROJECT + "[tool.uv]\n", "src/shop/__init__.py": ""}, False),
        ({"pyproject.toml": PROJECT + BUILT + "[tool.uv]\npackage = false\n"}, False),
    ],
)
def test_a_project_is_installed_itself_where_its_build_finds_what_it_holds(
    tmp_path: Path, files: dict[str, str | bytes], installed: bool
) -> None:
    (step,) = found(put(tmp_path, files)).steps
    assert step.project == (tmp_path.resolve() if installed else None)
    assert step.lines == (() if installed else ("flask>=3",))


def test_sources_of_uv_need_uv(tmp_path: Path) -> None:
    sources = '[tool.uv.sources]\nlib = { path = "lib" }\n'
    there = found(put(tmp_path, {"pyproject.toml": PROJECT + sources, "lib/pyproject.toml": PROJECT}))
    assert there.needs_uv
    assert there.steps[0].file == tmp_path.resolve() / "pyproject.toml"
    assert tmp_path.resolve() / "lib" / "pyproject.toml" in there.files


def test_groups_that_are_left_out_are_named(tmp_path: Path) -> None:
    there = found(put(tmp_path, {"pyproject.toml": PROJECT + '[dependency-groups]\ndev = ["pytest"]\n'}))
    assert "dev" in there.notes[0]


# groups and extras

EXTRA = '[project.optional-dependencies]\nmail = ["flask-mail"]\nall = ["shop[mail]", "celery"]\n'
GROUPS = '[dependency-groups]\nlint = ["ruff"]\nDev_Tools = ["pytest", {include-group = "lint"}]\n'
POETRY = """\
[tool.poetry]
name = "shop"
[tool.poetry.dependencies]
flask = "*"
mail = {version = "^1", optional = true}
[tool.poetry.extras]
post = ["mail"]
[tool.poetry.dev-dependencies]
pytest = "*"
[tool.poetry.group.lint.dependencies]
ruff = "^1.0"
"""
PIPFILE = "[packages]\nflask = '*'\n[dev-packages]\npytest = '*'\n[ci]\ncoverage = '==7'\n"
PIPENV_LOCK = {
    name: {each: {"version": "==1"}} for name, each in [("default", "a"), ("develop", "b"), ("ci", "c")]
}


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({"pyproject.toml": PROJECT + GROUPS}, ["dev-tools"], ["flask>=3", "pytest", "ruff"]),
        ({"pyproject.toml": PROJECT + EXTRA}, ["all"], ["flask>=3", "flask-mail", "celery"]),
        ({"pyproject.toml": POETRY}, ["dev", "lint"], ["flask", "pytest", "ruff>=1.0,<2"]),
        ({"pyproject.toml": POETRY}, ["post"], ["flask", "mail>=1,<2"]),
        ({"Pipfile": PIPFILE}, ["dev", "ci"], ["pytest", "coverage==7", "flask"]),
        ({"Pipfile": "", "Pipfile.lock": json.dumps(PIPENV_LOCK)}, ["ci"], ["c==1", "a==1"]),
    ],
)  # fmt: skip
def test_groups_and_extras_that_are_asked_for_are_installed(
    tmp_path: Path, files: dict[str, str | bytes], groups: list[str], expected: list[str]
) -> None:
    there = declared.find(put(tmp_path, files), groups)
    assert there is not None
    assert [line for step in there.steps for line in step.lines] == expected
    assert not any(name in note for note in there.notes for name in groups)


def test_groups_of_a_lock_are_left_to_uv_and_extras_of_a_project_to_the_installer(tmp_path: Path) -> None:
    put(tmp_path, {"uv.lock": "version = 1\n", "pyproject.toml": PROJECT + EXTRA + GROUPS + BUILT})
    there = declared.find(tmp_path, ["lint", "mail"])
    assert there is not None
    assert (there.steps[0].groups, there.steps[0].extras) == (("lint",), ("mail",))
    there = declared.read(tmp_path / "pyproject.toml", tmp_path, ["lint", "mail"])
    project, lines = there.steps
    assert (project.project, project.extras, lines.lines) == (tmp_path.resolve(), ("mail",), ("ruff",))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"pyproject.toml": PROJECT + GROUPS}, "has Dev_Tools, lint"),
        ({"Pipfile": PIPFILE}, "has ci, dev"),
        ({"requirements.txt": "flask\n"}, "has no groups"),
        ({"pyproject.toml": PROJECT + '[dependency-groups]\nother = [{include-group = "other"}]\n'}, "includes itself"),
    ],
)  # fmt: skip
def test_a_group_that_is_not_there_is_one_clear_error(
    tmp_path: Path, files: dict[str, str | bytes], told: str
) -> None:
    with pytest.raises(BootstrapError) as caught:
        declared.find(put(tmp_path, files), ["other"])
    assert told in caught.value.cause


# Poetry


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("^1.2.3", ">=1.2.3,<2"),
        ("^1.2", ">=1.2,<2"),
        ("^1", ">=1,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0.0", ">=0.0,<0.1"),
        ("^0", ">=0,<1"),
        ("^1.0b2", ">=1.0b2,<2"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1.2", ">=1.2,<1.3"),
        ("~1", ">=1,<2"),
        ("~=1.2", "~=1.2"),
        ("*", ""),
        ("1.*", "==1.*"),
        ("1.2.3", "==1.2.3"),
        ("=1.2", "==1.2"),
        ("== 1.2", "==1.2"),
        (">=1.2,<3", ">=1.2,<3"),
        (">= 1.2, < 3", ">=1.2,<3"),
        (">=1.2 <3", ">=1.2,<3"),
        ("!=1.5,>=1", "!=1.5,>=1"),
        ("^1.0 || ^2.0", ">=2.0,<3"),
    ],
)
def test_constraints_of_poetry_are_written_as_pep_440_has_them(constraint: str, expected: str) -> None:
    from packaging.specifiers import SpecifierSet

    assert poetry.specifier(constraint) == expected
    SpecifierSet(expected)


def test_a_table_of_poetry_becomes_requirements(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "lib/pyproject.toml": PROJECT,
            "pyproject.toml": """\
[tool.poetry]
name = "shop"
[tool.poetry.dependencies]
python = "^3.8"
flask = "^3.0"
pymongo = {version = "~4.6", extras = ["srv"]}
tomli = {version = "*", python = "<3.11"}
colorama = {version = "*", platform = "win32"}
pinned = [{version = "1.0", python = "<3.9"}, {version = "2.0", python = ">=3.9,<4"}]
mine = {git = "git@example.com:me/mine.git", tag = "v1"}
lib = {path = "lib", develop = true}
left = {version = "*", optional = true}
[tool.poetry.group.dev.dependencies]
pytest = "*"
[[tool.poetry.source]]
name = "own"
url = "https://example.com/simple"
""",
        },
    )
    there = found(tmp_path)
    (step,) = there.steps
    lib = tmp_path.resolve() / "lib"
    assert step.lines == (
        "--extra-index-url https://example.com/simple",
        "flask>=3.0,<4",
        "pymongo[srv]>=4.6,<4.7",
        'tomli ; python_version < "3.11"',
        'colorama ; sys_platform == "win32"',
        'pinned==1.0 ; python_version < "3.9"',
        'pinned==2.0 ; python_version >= "3.9" and python_version < "4"',
        "mine @ git+ssh://git@example.com/me/mine.git@v1",
        f"-e {lib.as_uri()}",
    )
    assert lib / "pyproject.toml" in there.files
    assert "dev" in there.notes[0]


def package(name: str, version: str = "1.0", behind: str = "", files: bool = True) -> str:
    hashes = f'files = [{{file = "{name}.whl", hash = "sha256:{name}"}}]\n' if files else ""
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\n{hashes}{behind}\n'


def test_a_lock_of_poetry_2_installs_the_main_group_as_it_is_pinned(tmp_path: Path) -> None:
    lock = (
        package("flask", behind='groups = ["main", "dev"]\nmarkers = {main = "python_version < \\"4\\""}\n')
        + package("colorama", behind='groups = ["main"]\nmarkers = "sys_platform == \'win32\'"\n')
        + package("pytest", behind='groups = ["dev"]\n')
        + package("extra", behind='groups = ["main"]\noptional = true\n')
        + package(
            "mine",
            files=False,
            behind='groups = ["main"]\n[package.source]\ntype = "git"\nurl = "https://example.com/mine.git"\n'
            'reference = "main"\nresolved_reference = "abc"\n',
        )
    )
    project = "[tool.poetry]\nname='shop'\n[tool.poetry.group.dev.dependencies]\npytest='*'\n" + BUILT
    there = found(put(tmp_path, {"poetry.lock": lock, "pyproject.toml": project, "shop/__init__.py": ""}))
    hashed, other, own = there.steps
    assert hashed.lines == (
        'flask==1.0 ; python_version < "4" --hash=sha256:flask',
        "colorama==1.0 ; sys_platform == 'win32' --hash=sha256:colorama",
    )
    assert other.lines == ("mine @ git+https://example.com/mine.git@abc",)
    assert (own.project, own.dependencies) == (tmp_path.resolve(), False)
    assert not hashed.dependencies
    more = declared.find(tmp_path, ["dev"])
    assert more is not None
    assert more.steps[0].lines == (
        "flask==1.0 --hash=sha256:flask",
        "colorama==1.0 ; sys_platform == 'win32' --hash=sha256:colorama",
        "pytest==1.0 --hash=sha256:pytest",
    )


def test_a_lock_without_groups_installs_what_the_dependencies_of_the_app_lead_to(tmp_path: Path) -> None:
    lock = (
        package(
            "Flask", behind='[package.dependencies]\nclick = ">=8"\nzipp = {version = "*", markers = "a"}\n'
        )
        + package("click", "8.0", '[package.dependencies]\ncolorama = {version = "*", markers = "b"}\n')
        + package("colorama")
        + package("zipp", behind='[package.dependencies]\nclick = "*"\n')
        + package(
            "pymongo",
            behind='[package.dependencies]\ndns = {version = "*", optional = true, markers = "extra == \'srv\'"}\n'
            'snappy = {version = "*", optional = true, markers = "extra == \'snappy\'"}\n',
        )
        + package("dns")
        + package("snappy")
        + package("pytest", behind='[package.dependencies]\npluggy = "*"\n')
        + package("pluggy")
        + package("numpy", "1.0")
        + package("numpy", "2.1")
    )
    project = (
        "[tool.poetry]\nname='shop'\n[tool.poetry.dependencies]\nflask='*'\n"
        "pymongo={version='*',extras=['srv']}\n"
        "numpy=[{version='^1.0',python='<3.9'},{version='^2.0',python='>=3.9'}]\n"
    )
    (step,) = found(put(tmp_path, {"poetry.lock": lock, "pyproject.toml": project})).steps
    assert [line.split(" --hash")[0] for line in step.lines] == [
        "Flask==1.0",
        "click==8.0",
        "colorama==1.0 ; b",
        "zipp==1.0 ; a",
        "pymongo==1.0",
        "dns==1.0",
        'numpy==1.0 ; python_version < "3.9"',
        'numpy==2.1 ; python_version >= "3.9"',
    ]


def test_poetry_installs_no_project_that_it_would_not_find(tmp_path: Path) -> None:
    project = "[tool.poetry]\nname='shop'\n[tool.poetry.dependencies]\nflask='*'\n" + BUILT
    assert [step.project for step in found(put(tmp_path, {"pyproject.toml": project})).steps] == [None]
    put(tmp_path, {"src/shop/__init__.py": ""})
    assert [step.project for step in found(tmp_path).steps] == [None, tmp_path.resolve()]
    put(tmp_path, {"pyproject.toml": project.replace("'shop'", "'shop'\npackage-mode=false")})
    assert [step.project for step in found(tmp_path).steps] == [None]


# Pipenv


def test_a_lock_of_pipenv_installs_its_default_section_with_hashes(tmp_path: Path) -> None:
    lock = {
        "_meta": {
            "sources": [{"url": "https://pypi.org/simple"}, {"url": "https://${USER}@example.com/simple"}]
        },
        "default": {
            "flask": {
                "version": "==3.0",
                "hashes": ["sha256:a", "sha256:b"],
                "markers": "python_version >= '3.8'",
            },
            "pymongo": {"version": "==4.6", "hashes": ["sha256:c"], "extras": ["srv"]},
            "mine": {"git": "https://example.com/mine.git", "ref": "abc"},
            "lib": {"path": "./lib", "editable": True},
        },
        "develop": {"pytest": {"version": "==8"}},
    }
    there = found(put(tmp_path, {"Pipfile.lock": json.dumps(lock), "Pipfile": "", "lib/setup.py": ""}))
    hashed, other = there.steps
    index = "--extra-index-url https://${USER}@example.com/simple"
    assert hashed.lines == (
        index,
        "flask==3.0 ; python_version >= '3.8' --hash=sha256:a --hash=sha256:b",
        "pymongo[srv]==4.6 --hash=sha256:c",
    )
    lib = tmp_path.resolve() / "lib"
    assert other.lines == (index, "mine @ git+https://example.com/mine.git@abc", f"-e {lib.as_uri()}")
    assert lib / "setup.py" in there.files


def test_a_pipfile_becomes_requirements(tmp_path: Path) -> None:
    document = {
        "source": [{"url": "https://pypi.org/simple"}],
        "packages": {
            "flask": "*",
            "click": "~=8.1",
            "pywin32": {"version": "*", "sys_platform": "== 'win32'"},
        },
        "dev-packages": {"pytest": "*"},
    }
    assert pipfile.from_pipfile(document, tmp_path) == [
        "flask",
        "click~=8.1",
        "pywin32 ; sys_platform == 'win32'",
    ]


# encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_requirements_are_read_in_any_encoding_that_pip_takes(encoding: str, end: str) -> None:
    text = f"flask{end}# façade{end}"
    content = text.encode(encoding)
    if encoding == "utf-16-be":
        content = b"\xfe\xff" + content
    assert requirements_files.decoded(content) == "flask\n# façade\n"


def test_a_copy_for_the_installer_includes_what_the_file_includes(tmp_path: Path) -> None:
    app, into = tmp_path / "my app", tmp_path / "copies"
    into.mkdir()
    put(
        app,
        {
            "requirements.txt": "flask\r\n-r more/base.txt\r\n-c limits.txt # why\r\n-e ./lib\r\n".encode(
                "utf-16"
            ),
            "more/base.txt": b"\xef\xbb\xbfclick\r\n",
            "limits.txt": "flask<4\n",
        },
    )
    copy = requirements_files.plain(app / "requirements.txt", into)
    assert copy.parent == into
    texts = [file.read_bytes().decode("ascii") for file in requirements_files.all_files(copy)]
    assert [text.split("\n")[0] for text in texts] == ["flask", "click", "flask<4"]
    assert "-e ./lib\n" in texts[0]
    (app / "plain.txt").write_text("-r limits.txt\n")
    assert requirements_files.plain(app / "plain.txt", into) == app / "plain.txt"
