"""`pull` into a deployment: its rules, its key, the two servers; and what went wrong, without secrets."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from provision.core.dataclass import dataclass
from pathlib import Path
from typing import Any

from provision.core.errors import ProvisionError
from provision.core.steps import Progress
from provision.data.connection import connected
from provision.data.dumps.writing import seconds_since
from provision.data.pulls import pulling, rules
from provision.data.pulls.pulling import Pull, PulledCollection, Sample
from provision.data.pulls.rules import Plan
from provision.deployments.deployment import Deployment
from provision.settings.paths import Paths
from provision.state import records

_KEY_BYTES = 32


@dataclass(frozen=True)
class Pulled:
    """What was pulled. `unmasked` names the collections that were copied as they are, and don't say that this is meant."""

    deployment: str
    database: str
    documents: int
    duplicates: int
    collections: list[PulledCollection]
    unmasked: list[str]
    seconds: float


@dataclass(frozen=True)
class Request:
    """What to pull."""

    uri: str  # of the source, with its password
    variable: str  # that it comes from
    collections: Sequence[str]
    sample: Sample
    plan: Plan
    database: str  # of the source; empty: that of the connection string
    into: str  # database of the deployment
    drop: bool


def source_uri(variable: str, environment: Mapping[str, str]) -> str:
    """The connection string of the source.

    Raises ProvisionError: the environment has none.
    """
    uri = environment.get(variable, "")
    if not uri:
        raise ProvisionError(
            "pulling data",
            f"{variable} is not set. It holds the connection string of the server to read, which is never an argument.",
            f"Set it: export {variable}='mongodb://USER:PASSWORD@HOST/DATABASE'; then: invoke pull --collections NAME",
        )
    return uri


def read_plan(file: Path | None) -> Plan:
    """The rules of a file; without one, there are none.

    Raises ProvisionError: it can't be read, or is wrong.
    """
    if file is None:
        return Plan({}, [])
    import yaml

    doing = f"reading the masks in {file}"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProvisionError(doing, f"{file}: {error.strerror}.", "Name the file: invoke pull --mask FILE") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProvisionError(doing, f"It is not YAML: {error}", "Correct the file.") from None
    return rules.parse(content, str(file))


def mask_key(paths: Paths) -> bytes:
    """The key of this project's masks; made at first use."""
    file = paths.mask_key
    if not file.is_file():
        records.MASK_KEY.put(file, secrets.token_hex(_KEY_BYTES))
    return bytes.fromhex(file.read_text(encoding="ascii").strip())


def unmasked(plan: Plan, collections: Sequence[str]) -> list[str]:
    """The collections that would be copied as they are, and don't say `keep`. Pure."""
    return [name for name in collections if not plan.rules(name).masks and not plan.rules(name).keeps]


def pull(deployment: Deployment, paths: Paths, request: Request, progress: Progress) -> Pulled:
    """Read, mask and insert.

    Raises ProvisionError: one of the servers can't be reached or refuses; what was pulled until then is said.
    """
    from pymongo.errors import PyMongoError

    begun, doing = time.monotonic(), f"pulling from {request.variable} into {deployment.name}"
    run: Pull | None = None
    with (
        pulling.connect(request.uri, request.variable, doing) as source,
        connected(deployment, doing, "invoke pull") as target,
    ):
        try:
            run = _prepared(source, target, paths, request, progress, doing)
            collections = run.collections(request.collections)
            run.run(request.collections, collections, request.drop)
        except PyMongoError as error:
            why = f"{pulling.without_secrets(error, request.uri)}\n{_told(run)}"
            raise ProvisionError(
                doing, why, f"Check what {request.variable} names, and: invoke status --on {deployment.name}"
            ) from None
    done = [run.done[name] for name in collections]
    return Pulled(
        deployment.name,
        request.into,
        sum(each.documents for each in done),
        sum(each.duplicates for each in done),
        done,
        unmasked(request.plan, collections),
        seconds_since(begun),
    )


def _prepared(source: Any, target: Any, paths: Paths, request: Request, progress: Progress, doing: str) -> Pull:
    from bson.codec_options import CodecOptions

    database = pulling.source_database(source, request.database, doing)
    options: CodecOptions[Any] = source.codec_options
    into = target.get_database(request.into, codec_options=options)
    pulling.require_another_server(database, into, doing)
    return Pull(database, into, request.plan, request.sample, mask_key(paths), progress, doing)


def _told(run: Pull | None) -> str:
    done = [f"{each.collection} ({each.documents:,} documents)" for each in (run.done.values() if run else ())]
    return f"Pulled before that: {', '.join(done) or 'nothing'}."
