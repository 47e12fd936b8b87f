"""The stand-in's command line and configuration file: the part of mongos's own that it honours.

Follows https://www.mongodb.com/docs/manual/reference/configuration-options/. An option that a mongos would refuse
is refused; one that is known but without a meaning for a stand-in is accepted and named in the log.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What is honoured, and what is accepted without effect.
HONOURED = frozenset(
    {
        "sharding.configDB", "net.port", "net.bindIp", "net.bindIpAll", "net.maxIncomingConnections",
        "net.unixDomainSocket.enabled", "net.unixDomainSocket.pathPrefix",
        "net.tls.mode", "net.tls.certificateKeyFile", "net.tls.CAFile", "net.tls.clusterFile",
        "net.tls.allowConnectionsWithoutCertificates", "net.tls.allowInvalidHostnames", "net.tls.clusterCAFile",
        "security.keyFile", "security.clusterAuthMode", "systemLog.destination", "systemLog.path",
        "systemLog.logAppend", "processManagement.pidFilePath",
    }
)  # fmt: skip
IGNORED_PREFIXES = (
    "setParameter.",
    "systemLog.",
    "net.",
    "processManagement.",
    "security.",
    "replication.localPing",
)
FORBIDDEN_PREFIXES = ("storage.", "replication.repl", "replication.oplog", "sharding.clusterRole")


class OptionsError(Exception):
    """The command line or the configuration file is wrong; the text says where."""

    status = 2


class KeyFileError(OptionsError):
    """The key file can't be used: mongos finds that out later, and ends with another status."""

    status = 14


@dataclass(frozen=True)
class Tls:
    """Transport encryption: `mode` as MongoDB names it, files in PEM."""

    mode: str = "disabled"
    certificate: str | None = None
    cluster_certificate: str | None = None
    ca: str | None = None
    certificate_optional: bool = False
    any_hostname: bool = False

    @property
    def outgoing(self) -> bool:
        """Connections to the cluster are encrypted."""
        return self.mode in {"preferTLS", "requireTLS"}

    def server_context(self) -> ssl.SSLContext | None:
        """Returns what incoming connections are encrypted with, None when they can't be. Raises OSError."""
        if self.mode == "disabled":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self.certificate))
        if self.ca:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_OPTIONAL if self.certificate_optional else ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext | None:
        """Returns what connections to the cluster are encrypted with, None for plain ones. Raises OSError."""
        if not self.outgoing:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = bool(self.ca) and not self.any_hostname
        context.verify_mode = ssl.CERT_REQUIRED if self.ca else ssl.CERT_NONE
        if self.ca:
            context.load_verify_locations(self.ca)
        context.load_cert_chain(str(self.cluster_certificate or self.certificate))
        return context


@dataclass(frozen=True)
class Options:
    """Everything the stand-in is told.

    Attributes:
        config_set: name of the config servers' replica set.
        config_seeds: ("host", port) of its members.
        bind: addresses to listen on.
        key: text of the key file without white space, None without internal authentication.
        x509: authenticate to the cluster with the certificate instead of the key file.
        unix_socket_dir: folder of the socket file, None for no such socket.
        ignored: options accepted without effect.
    """

    config_set: str
    config_seeds: tuple[tuple[str, int], ...]
    port: int = 27017
    bind: tuple[str, ...] = ("127.0.0.1",)
    max_connections: int = 1000
    unix_socket_dir: Path | None = Path("/tmp")
    tls: Tls = field(default_factory=Tls)
    key: str | None = field(default=None, repr=False)
    x509: bool = False
    log_path: Path | None = None
    log_append: bool = False
    pid_file: Path | None = None
    ignored: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    parsed: dict[str, Any] = field(default_factory=dict)

    @property
    def authenticates(self) -> bool:
        """Clients must log in: so it is in a cluster whose members authenticate to each other."""
        return self.key is not None or self.x509


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line: mongos's most used options, as mongos spells them."""
    made = argparse.ArgumentParser(
        prog="mongos", description="A stand-in for mongos, for tests only.", allow_abbrev=False
    )
    made.add_argument("--version", action="store_true")
    made.add_argument("--config", "-f", metavar="FILE")
    made.add_argument("--configdb", metavar="SET/HOST:PORT,…")
    made.add_argument("--port", type=int)
    made.add_argument("--bind_ip", metavar="ADDRESSES")
    made.add_argument("--bind_ip_all", action="store_true", default=None)
    made.add_argument("--keyFile", metavar="FILE")
    made.add_argument("--logpath", metavar="FILE")
    made.add_argument("--logappend", action="store_true", default=None)
    made.add_argument("--pidfilepath", metavar="FILE")
    made.add_argument("--nounixsocket", action="store_true", default=None)
    made.add_argument("--setParameter", action="append", metavar="NAME=VALUE")
    return made


def load(arguments: argparse.Namespace) -> Options:
    """Returns the options of a parsed command line and the file it names. Raises OptionsError."""
    values: dict[str, Any] = _read_file(Path(arguments.config)) if arguments.config else {}
    given = {
        "sharding.configDB": arguments.configdb,
        "net.port": arguments.port,
        "net.bindIp": arguments.bind_ip,
        "net.bindIpAll": arguments.bind_ip_all,
        "security.keyFile": arguments.keyFile,
        "systemLog.path": arguments.logpath,
        "systemLog.logAppend": arguments.logappend,
        "processManagement.pidFilePath": arguments.pidfilepath,
        "net.unixDomainSocket.enabled": False if arguments.nounixsocket else None,
    }
    values.update({name: value for name, value in given.items() if value is not None})
    if arguments.logpath:
        values["systemLog.destination"] = "file"
    return from_values(values)


def from_values(values: dict[str, Any]) -> Options:
    """Returns the options for dotted names and their values. Raises OptionsError."""
    for name in values:
        if name.startswith(FORBIDDEN_PREFIXES) or not (name in HONOURED or name.startswith(IGNORED_PREFIXES)):
            raise OptionsError(f"Unrecognized option: {name}")
    if "sharding.configDB" not in values:
        raise OptionsError("error: no args for --configdb")
    config_set, seeds = _connection_string(str(values["sharding.configDB"]))
    bind = tuple(str(values.get("net.bindIp", "localhost")).split(","))
    if values.get("net.bindIpAll"):
        bind = ("0.0.0.0",)
    to_file = values.get("systemLog.destination") == "file"
    if to_file and "systemLog.path" not in values:
        raise OptionsError("systemLog.path is required if systemLog.destination is to a file")
    cluster_auth = str(values.get("security.clusterAuthMode", "keyFile"))
    key_file = values.get("security.keyFile")
    sockets = values.get("net.unixDomainSocket.enabled", True)
    return Options(
        config_set=config_set,
        config_seeds=seeds,
        port=int(values.get("net.port", 27017)),
        bind=tuple("127.0.0.1" if address.strip() == "localhost" else address.strip() for address in bind),
        max_connections=min(int(values.get("net.maxIncomingConnections", 1000)), 1000),
        unix_socket_dir=Path(str(values.get("net.unixDomainSocket.pathPrefix", "/tmp"))) if sockets else None,
        tls=_tls(values),
        key=_read_key(Path(str(key_file))) if key_file else None,
        x509=cluster_auth in {"sendX509", "x509"},
        log_path=Path(str(values["systemLog.path"])) if to_file else None,
        log_append=bool(values.get("systemLog.logAppend", False)),
        pid_file=Path(str(path)) if (path := values.get("processManagement.pidFilePath")) else None,
        ignored=tuple(sorted(set(values) - HONOURED)),
        argv=tuple(sys.argv),
        parsed=_nested(values),
    )


def _tls(values: dict[str, Any]) -> Tls:
    mode = str(values.get("net.tls.mode", "disabled"))
    if mode not in {"disabled", "allowTLS", "preferTLS", "requireTLS"}:
        raise OptionsError(f"unsupported value for tlsMode {mode}")
    if mode != "disabled" and "net.tls.certificateKeyFile" not in values:
        raise OptionsError("need tlsCertificateKeyFile or certificateSelector when TLS is enabled")
    return Tls(
        mode=mode,
        certificate=values.get("net.tls.certificateKeyFile"),
        cluster_certificate=values.get("net.tls.clusterFile"),
        ca=values.get("net.tls.CAFile"),
        certificate_optional=bool(values.get("net.tls.allowConnectionsWithoutCertificates", False)),
        any_hostname=bool(values.get("net.tls.allowInvalidHostnames", False)),
    )


def _read_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise OptionsError(f"Error opening config file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise OptionsError(f"Error parsing YAML config file {path}: {error}") from error
    if not isinstance(document, dict):
        raise OptionsError(f"Error parsing YAML config file {path}: not a mapping")
    return dict(_flat(document))


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


def _connection_string(text: str) -> tuple[str, tuple[tuple[str, int], ...]]:
    name, slash, hosts = text.partition("/")
    if not slash or not name or not hosts:
        raise OptionsError(f"configdb supports only replica set connection string, not {text!r}")
    return name, tuple(parse_address(host) for host in hosts.split(","))


def parse_address(text: str) -> tuple[str, int]:
    """Returns ("host", port) of "host:port", "host" or "[v6]:port". Raises OptionsError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or host.endswith(":"):
        return text.strip().strip("[]"), 27019
    try:
        return host.strip("[]"), int(port)
    except ValueError as error:
        raise OptionsError(f"no port number in {text!r}") from error


def _read_key(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = "".join(path.read_text().split())
    except OSError as error:
        raise KeyFileError(f"Error reading file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(f"permissions on {path} are too open")
    if not 6 <= len(text) <= 1024:
        raise KeyFileError(f"security key in {path} has length {len(text)}, must be between 6 and 1024 chars")
    return text
