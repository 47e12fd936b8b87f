"""What `./invoke` does where it can't hand over to env/ at once: find a Python, and build env/ with it.

Needs nothing but Python and its standard library. This file is kept readable to any Python from 2.7 on, so
that one too old to build env/ can say so; all the work is in provision/env/bootstrap.py.
"""

# ruff: noqa: PTH113, PTH118, PTH208, PTH120, PTH109, PTH116, PTH123, UP024, UP031, RUF005, S606
import json
import os
import re
import sys

MINIMUM = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


# Variables that Python reads and `-I` makes it ignore, and the flag that says the same.
FLAGS = (("PYTHONDONTWRITEBYTECODE", "-B"), ("PYTHONUNBUFFERED", "-u"))


def isolated(python):
    # type: (str) -> list[str]
    """Return the beginning of a command line that runs the tool's own code with a Python, and nobody else's.

    `-I` keeps PYTHONPATH, PYTHONHOME, the current directory and the user's site-packages away from the tool. The
    variables themselves stay in the environment, because the app inherits them. `./invoke` says the same in sh.
    """
    return [python, "-I"] + [flag for name, flag in FLAGS if os.environ.get(name)]


def own_command(project):
    # type: (str) -> list[str]
    """Return the beginning of a command line that runs one of the tool's own commands in a project."""
    main = os.path.join(ROOT, "provision", "__main__.py")
    return isolated(sys.executable) + [main, "--search-root", project]


def pythons_on_path(minimum):
    # type: (tuple[int, int]) -> list[str]
    """Return the Pythons on the PATH that have their version in their name (python3.15), the newest first.

    Of one version all are returned, in the PATH's order: a pyenv shim may stand before the Python that runs.
    """
    found = []
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:
            continue
        for match in filter(None, (re.match(r"python(\d+)\.(\d+)$", name) for name in names)):
            version = (int(match.group(1)), int(match.group(2)))
            candidate = os.path.join(folder or os.curdir, match.group(0))
            if version >= minimum and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                found.append((version, candidate))
    return [candidate for version, candidate in sorted(found, key=lambda each: each[0], reverse=True)]


def find_python():
    """Return the path of a Python new enough on the PATH, or None. Each is run: a pyenv shim may not."""
    import subprocess

    test = "import sys; sys.exit(sys.version_info < %r)" % (MINIMUM,)
    for candidate in pythons_on_path(MINIMUM):
        with open(os.devnull, "w") as nowhere:
            if subprocess.call([candidate, "-I", "-c", test], stdout=nowhere, stderr=nowhere) == 0:
                return candidate
    return None


def ready_python():
    """Return env/'s interpreter where env/ was finished and it is still the one that env/ was made with.

    Only whether env/ can run is asked here. Whether it is up to date is asked once, by tasks.py, inside it.
    """
    python = os.path.join(ROOT, "env", "bin", "python")
    try:
        with open(os.path.join(ROOT, "env", ".provision.json")) as file:
            record = json.load(file)
        found = os.stat(python)
        unchanged = record["interpreter"] == [found.st_size, found.st_mtime_ns]
    except (IOError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    complete = record.get("state") == "complete" and record.get("path") == os.path.join(ROOT, "env")
    return python if unchanged and complete else None


def invoke_arguments(arguments):
    """Return the arguments for Invoke: run from elsewhere than the clone's top, it is told where tasks.py is."""
    try:
        there = os.path.realpath(os.getcwd()) == ROOT
    except OSError:  # the current directory was deleted
        there = False
    told = any(a in ("-r", "--search-root") or a.startswith(("-r=", "--search-root=")) for a in arguments)
    return list(arguments) if there or told else ["--search-root", ROOT] + list(arguments)


def main(arguments):
    if os.name != "posix":
        sys.stderr.write("error: this tool runs on Linux and macOS. On Windows, use WSL.\n")
        return 1
    if "PROVISION_BOOTSTRAP" not in os.environ:
        python = ready_python()
        if python is not None:
            os.execv(
                python, isolated(python) + [os.path.join(ROOT, "provision", "cli", "entry.py")] + arguments
            )
    if sys.version_info < MINIMUM:
        newer = find_python()
        if newer is not None:
            os.execv(
                newer, isolated(newer) + [os.path.join(ROOT, "provision", "env", "wrapper.py")] + arguments
            )
        sys.stderr.write(
            "error: making the virtualenv env/: Python %d.%d or newer is needed\n"
            "  why:  %s is Python %s, and the PATH has no newer one that runs\n"
            "  next: install Python %d.%d or newer, or name one: /path/to/python3 %s\n"
            % (MINIMUM + (sys.executable, "%d.%d.%d" % sys.version_info[:3]) + MINIMUM + (sys.argv[0],))
        )
        return 1
    sys.path.insert(0, ROOT)
    # Nothing is written before it is known that something may be: this may be a dry run.
    sys.dont_write_bytecode = True
    from provision.core import output, typed
    from provision.env import bootstrap

    typed.runs_as_wrapper(os.environ)

    output.guard()
    return output.status(bootstrap.main(arguments))


if __name__ == "__main__":
    sys.exit(main(invoke_arguments(sys.argv[1:])))
