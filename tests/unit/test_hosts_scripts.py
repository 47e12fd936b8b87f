"""Programs that run on hosts, run here as a host would: in a plain sh, with what a host may lack left out."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.hosts.scripts import script


@pytest.mark.parametrize("programs", [["openssl", "sha256sum"], ["sha256sum"]], ids=" and ".join)
def test_a_digest_is_the_same_with_and_without_openssl(tmp_path: Path, programs: list[str]) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    for name in programs:
        if found := shutil.which(name):
            (place / name).symlink_to(found)
    file = tmp_path / "a file"
    file.write_bytes(bytes(range(256)) * 1000)
    ran = subprocess.run(
        ["/bin/sh", "-c", f'{script("lib/digest.sh")}\nset -e\nsha256_of "$1"', "provision", str(file)],
        env={"PATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == hashlib.sha256(file.read_bytes()).hexdigest()
