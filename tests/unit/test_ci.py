"""`.ci/prepare`, on a machine that lacks what a bare Debian lacks; `bash .ci/bare trixie` tries it on a real one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.capabilities import AS_NOBODY, ROOT

# What the script itself uses, and every Debian has.
TOOLS = (
    "awk", "bash", "cat", "chmod", "dirname", "env", "grep", "head", "id", "ldd", "mktemp", "rm", "sed", "sh", "sleep",
    "tail", "tee", "tr", "touch",
)  # fmt: skip
# What Debian 13 installs with a package, as a recommended package is left out.
SUDO = """#!/bin/sh
[ "$1" = -n ] && shift
[ "$1" = -- ] && shift
echo "$*" >>"$RECORD"
case " $* " in *" install "*) ;; *) exit 0 ;; esac
for package in "$@"; do
    case $package in
    docker-cli) touch "$BIN/docker" && chmod 755 "$BIN/docker" ;;
    npm) touch "$BIN/npm" && chmod 755 "$BIN/npm" ;;
    mongosh@*) touch "$BIN/mongosh" && chmod 755 "$BIN/mongosh" ;;
    esac
done
"""


@pytest.mark.needs("another-user")
def test_npm_and_dockers_client_are_installed_where_the_engines_package_does_not_bring_them(
    tmp_path: Path,
) -> None:
    binaries, record = tmp_path / "bin", tmp_path / "record"
    binaries.mkdir()
    binaries.chmod(0o777)
    record.touch()
    record.chmod(0o666)
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (binaries / name).symlink_to(found)
    (binaries / "python3").symlink_to(sys.executable)
    stubs = {"sudo": SUDO, "uname": "#!/bin/sh\necho riscv64\n"}
    stubs |= dict.fromkeys(
        ("apt-get", "git", "chromium", "tmux", "ps", "ssh", "ip", "dockerd", "sshd"), "#!/bin/sh\n"
    )
    for name, text in stubs.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    done = subprocess.run(
        [
            str(shutil.which(AS_NOBODY[0])),
            *AS_NOBODY[1:],
            str(binaries / "bash"),
            str(ROOT / ".ci" / "prepare"),
        ],
        env={"PATH": str(binaries), "HOME": "/nonexistent", "BIN": str(binaries), "RECORD": str(record)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    installs = [
        line.split(" install ")[1].split() for line in record.read_text().splitlines() if " install " in line
    ]
    assert any("npm" in packages for packages in installs), installs
    assert any("docker-cli" in packages for packages in installs), installs
    assert any("mongosh" in package for packages in installs for package in packages), installs
