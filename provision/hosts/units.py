"""What keeps a program running on its host: a systemd unit, or a process that a small shell waits for.

The scripts here run on the host. Each handles all units of that host at once: one round trip. A process is ours if
its pid, its start time and the host's boot are those of the record that was written when it was started.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.backends.base import Observed
from provision.hosts.facts import ABSOLUTE, UNITS
from provision.hosts.link import Link, Ran

SYSTEM, USER, PROCESS = "system", "user", "process"
OBSERVE_SECONDS = 10.0
_END_MARGIN = 30.0


@dataclass(frozen=True)
class Unit:
    """A program that is kept running: a node, or the app.

    Args:
        name: its name; what belongs to it in the deployment's directory is called after it.
        port: the port that it listens on.
        command: absolute path of the program on the host, and its arguments; no secrets.
    """

    name: str
    port: int
    command: tuple[str, ...]


def unit_name(deployment: str, node: str) -> str:
    """Name of a node's systemd unit."""
    return f"mongodb-{deployment}-{node}.service"


def node_command(binary: str, directory: str, node: str) -> tuple[str, ...]:
    """What runs a node: its binary, with its configuration in the deployment's directory on the host."""
    return (binary, "--config", f"{directory}/{node}.conf")


def render_unit(
    template: str,
    deployment: str,
    name: str,
    directory: str,
    command: Sequence[str],
    environment: Sequence[str],
    kind: str,
) -> str:
    """The text of a systemd unit. Pure.

    Args:
        template: text of ``templates/mongod.service.j2`` or ``templates/app.service.j2``.
        name: the node's name, or ``app``.
        directory: absolute path of the deployment's directory on the host.
        command: absolute path of the program there, and its arguments.
        environment: ``NAME=value`` of what it needs, nothing secret.
        kind: ``system`` or ``user``.
    """
    import jinja2

    engine = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False  # noqa: S701 — a unit, not HTML
    )  # fmt: skip
    engine.filters["unit"] = _quoted
    return engine.from_string(template).render(
        deployment=deployment,
        name=name,
        directory=directory,
        command=command,
        environment=environment,
        kind=kind,
    )


def _quoted(value: str) -> str:
    """A value for a unit file, where %, quotes and backslashes mean something."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def parse_observed(text: str) -> dict[str, Observed]:
    """What `OBSERVE` printed: node → how it was found. Pure."""
    found = {}
    for line in text.splitlines():
        node, _, rest = line.partition(" ")
        state, _, value = rest.partition(" ")
        number = int(value) if value.lstrip("-").isdigit() else None
        if state == "running":
            words = value.split()
            pid = next((int(word) for word in words if word.isdigit()), None)
            found[node] = Observed(True, paused="paused" in words, remote_pid=pid or None)
        elif state == "ended":
            # A shell turns signal n into status 128 + n.
            signalled = number is not None and number > 128
            found[node] = Observed(False, None, 128 - number if signalled and number else number)
        else:
            found[node] = Observed(False)
    return found


@dataclass(frozen=True)
class Supervisor:
    """What keeps the units of one deployment running on one host.

    Args:
        here: the deployment's directory there, absolute.
        kind: ``process``, ``system`` or ``user``.
        deployment: its name, for errors.
    """

    link: Link
    here: str
    kind: str
    deployment: str

    @classmethod
    def settle(cls, link: Link, deployment: str) -> Supervisor:
        """Ask a host for what only it knows: where its user's home is, and whether systemd runs units for him.

        Raises:
            HostError: it gave no answer.
            Unreachable: it can't be asked.
        """
        directory = str(link.host.data_dir / deployment)
        ran = link.script(_SETTLE, directory, timeout=OBSERVE_SECONDS)
        here, _, found = ran.out.strip().partition("\n")
        if ran.status != 0 or not here.startswith("/"):
            raise link.failed(f"looking at {deployment}", ran, directory)
        wanted = link.host.units
        return cls(link, here, (found or PROCESS) if wanted == "auto" else wanted, deployment)

    def observe(self, services: Mapping[str, str]) -> dict[str, Observed]:
        """How units were found.

        Args:
            services: name → name of its systemd unit.

        Raises:
            HostError: the host could not say.
            Unreachable: it can't be asked.
        """
        if self.kind == PROCESS:
            ran = self.link.script(OBSERVE, self.here, *services, timeout=OBSERVE_SECONDS)
        else:
            pairs = _pairs(services)
            ran = self.link.script(UNITS_OBSERVE, self.here, self.kind, *pairs, timeout=OBSERVE_SECONDS)
        self._must(f"looking at {self.deployment}", ran)
        return parse_observed(ran.out)

    def launch(
        self, wanted: Sequence[Unit], services: Mapping[str, str], environment: Mapping[str, str], doing: str
    ) -> None:
        """Start units; one that runs is left as it is.

        Args:
            wanted: the units. As systemd units they are started as their files in the directory say.
            services: name → name of its systemd unit.
            environment: variables for processes, nothing secret; a systemd unit has them in its file.
            doing: what for, for the error.

        Raises:
            HostError: one can't be started.
            Unreachable: the host can't be reached.
        """
        if self.kind == PROCESS:
            groups = [
                word for each in wanted for word in (each.name, str(each.port), shlex.join(each.command))
            ]
            given = "".join(f"{name}={value}\n" for name, value in environment.items())
            ran = self.link.script(LAUNCH, self.here, *groups, feed=given.encode())
        else:
            pairs = _pairs({each.name: services[each.name] for each in wanted})
            ran = self.link.script(UNITS_LAUNCH, self.here, self.kind, *pairs)
        self._must(doing, ran)

    def end(self, services: Mapping[str, str], patience: float, doing: str) -> None:
        """End units, and wait until they have ended.

        Args:
            services: name → name of its systemd unit.
            patience: seconds to wait before SIGKILL; 0: SIGKILL at once.
            doing: what for, for the error.

        Raises:
            HostError: that failed.
            Unreachable: the host can't be reached.
        """
        seconds, limit = str(round(patience)), patience + _END_MARGIN
        if self.kind == PROCESS:
            ran = self.link.script(END, self.here, seconds, *services, timeout=limit)
        else:
            own = services.values()
            ran = self.link.script(UNITS_END, self.here, self.kind, seconds, *own, timeout=limit)
        self._must(doing, ran)

    def remove(self, services: Mapping[str, str], everything: bool, data: bool, doing: str) -> None:
        """Remove what is left of units that have ended.

        Args:
            services: name → name of its systemd unit.
            everything: also what all nodes of the deployment share on the host.
            data: also their data and logs.
            doing: what for, for the error.

        Raises:
            HostError: that failed.
            Unreachable: the host can't be reached.
        """
        if self.kind != PROCESS:
            own = services.values()
            self._must(doing, self.link.script(UNITS_REMOVE, self.here, self.kind, *own))
        extent, fate = "all" if everything else "some", "data" if data else "keep"
        self._must(doing, self.link.script(REMOVE, self.here, extent, fate, *services))

    def _must(self, doing: str, ran: Ran) -> None:
        if ran.status != 0:
            raise self.link.failed(doing, ran, self.here)


def _pairs(services: Mapping[str, str]) -> list[str]:
    return [word for pair in services.items() for word in pair]


# The deployment's directory, absolute, and the kind of systemd units that this user can have.
_SETTLE = (
    ABSOLUTE
    + UNITS
    + """
absolute "$1"
echo
units
"""
)

# Every script below: $1 is the deployment's directory on the host. A node there is any unit: the app, too.
# started PID: whether that process is there; sets when it was started, and `frozen` if it is.
_COMMON_STATE = """
started() {
    { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    frozen=
    [ "$1" != T ] || frozen=paused
    [ "$1" != Z ] && start_now=${20}
}
"""
_COMMON = (
    _COMMON_STATE
    + """
here=$1
shift
read -r boot < /proc/sys/kernel/random/boot_id
alive() {
    pid= start= on=
    [ -r "$here/$1.pid" ] || return 1
    while IFS='=' read -r key value; do
        case $key in pid) pid=$value ;; start) start=$value ;; boot) on=$value ;; esac
    done < "$here/$1.pid"
    [ -n "$pid" ] && [ "$on" = "$boot" ] && started "$pid" && [ "$start_now" = "$start" ]
}
"""
)

# Arguments: the names of nodes.
OBSERVE = (
    _COMMON
    + """
for node in "$@"; do
    if alive "$node"; then echo "$node running $pid $frozen"
    elif [ -s "$here/$node.exit" ]; then read -r status < "$here/$node.exit"; echo "$node ended $status"
    else echo "$node absent"; fi
done
"""
)

# Arguments: node, port and command (quoted for a shell), in turn. Standard input: `NAME=value` lines for the
# environment, nothing secret. The shell that stays writes down how its program ended.
LAUNCH = (
    _COMMON
    + """
cd "$here" || exit 1
umask 077
while read -r line; do export "$line"; done
begun=
while [ $# -gt 0 ]; do
    node=$1 port=$2 command=$3
    shift 3
    ! alive "$node" || continue
    rm -f "$node.exit" "$node.pid"
    { mkdir -p "$node" && : > "$node.out"; } || exit 1
    PROVISION_NODE="$here:$node" setsid sh -c '
        node=$1 port=$2 boot=$3
        eval "set -- $4"
        "$@" &
        pid=$!
        read -r stat < "/proc/$pid/stat"
        set -- ${stat##*) }
        printf "pid=%s\\nstart=%s\\nboot=%s\\nport=%s\\n" "$pid" "${20}" "$boot" "$port" > "$node.pid.new" &&
            mv -f "$node.pid.new" "$node.pid" || { kill "$pid"; exit 1; }
        wait "$pid"
        echo $? > "$node.exit"
    ' supervise "$node" "$port" "$boot" "$command" </dev/null >"$node.out" 2>&1 &
    begun="$begun $node"
done
n=0
for node in $begun; do
    while [ ! -e "$node.pid" ] && [ ! -s "$node.exit" ] && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done
    [ -e "$node.pid" ] || { echo "$node could not be started: $(cat "$node.out")" >&2; exit 1; }
done
"""
)

# $2: seconds to wait before SIGKILL; 0: SIGKILL at once. Then the names of nodes.
END = (
    _COMMON
    + """
patience=$1
shift
signal=TERM
[ "$patience" != 0 ] || signal=KILL
for node in "$@"; do
    ! alive "$node" || { kill -s $signal "$pid"; kill -s CONT "$pid"; }  # one that is paused must hear it, too
done
deadline=$(($(date +%s) + patience + 1))
while :; do
    left=
    for node in "$@"; do ! alive "$node" || left="$left $node"; done
    [ -n "$left" ] || break
    if [ "$(date +%s)" -ge "$deadline" ]; then
        for node in $left; do ! alive "$node" || kill -s KILL "$pid"; done
        deadline=$((deadline + 10))
    fi
    sleep 0.02
done
n=0
for node in "$@"; do
    # The shell that waits for it has the last word; it would leave a file behind.
    while [ -e "$here/$node.pid" ] && [ ! -s "$here/$node.exit" ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.02; done
    rm -f "$here/$node.pid" "$here/$node.exit"
done
"""
)

# $2: a port, as /proc/net/tcp writes it; $3: a process. Prints whether the port is free, that process's, or another's;
# "unknown" where this user may not look at the process.
HOLDS = """
sockets=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk -v port=":$2" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }')
[ -n "$sockets" ] || { echo free; exit 0; }
opened=$(ls -l "/proc/$3/fd" 2>/dev/null) || { [ ! -d "/proc/$3" ] && echo other || echo unknown; exit 0; }
for each in $sockets; do
    case $opened in *"socket:[$each]"*) echo own; exit 0 ;; esac
done
echo other
"""

# $2: process, system or user; $3: the node; $4: its unit; $5: a signal. Prints how it was before.
FREEZE = (
    _COMMON
    + """
kind=$1 node=$2 unit=$3 signal=$4
if [ "$kind" = process ]; then alive "$node" || { echo absent; exit 0; }
else
    own=
    [ "$kind" = system ] || { own=--user; export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; }
    pid=$(systemctl $own show "$unit" -p MainPID --value)
    started "${pid:-0}" || { echo absent; exit 0; }
fi
echo "${frozen:-running}"
kill -s "$signal" "$pid"
"""
)

# $2: all (the directory itself, too) or some; $3: data or keep. Then the names of nodes.
REMOVE = (
    _COMMON
    + """
all=$1 data=$2
shift 2
cd "$here" 2>/dev/null || exit 0
for node in "$@"; do
    ! alive "$node" || { echo "$node is running" >&2; exit 1; }
    rm -f "$node.pid" "$node.exit" "$node.conf"
    [ "$data" != data ] || rm -rf -- "./$node" "./$node.log" "./$node.out"
done
[ "$all" != all ] || rm -rf keyfile host.pem ca.pem .incoming.*
cd /
rmdir "$here" 2>/dev/null || true
"""
)

# The same for nodes that are systemd units. $2: system or user. Units are linked from the deployment's directory, so
# that what the tool wrote is in `data_dir` alone.
_SYSTEMD = """
here=$1 kind=$2
shift 2
own=
[ "$kind" = system ] || { own=--user; export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; }
"""

# Arguments: node and unit, in turn.
UNITS_OBSERVE = (
    _COMMON_STATE
    + _SYSTEMD
    + """
while [ $# -gt 0 ]; do
    node=$1 unit=$2
    shift 2
    state= sub= status= code= pid= frozen=
    while IFS='=' read -r key value; do
        case $key in
            ActiveState) state=$value ;; SubState) sub=$value ;;
            ExecMainStatus) status=$value ;; ExecMainCode) code=$value ;; MainPID) pid=$value ;;
        esac
    done <<END
$(systemctl $own show "$unit" -p ActiveState -p SubState -p ExecMainStatus -p ExecMainCode -p MainPID)
END
    started "${pid:-0}" || frozen=
    # 2: it was ended by a signal, as a shell would say it.
    [ "$code" != 2 ] || status=$((128 + status))
    case $state:$sub in
        *:auto-restart|failed:*) echo "$node ended $status" ;;
        active:*|activating:*|reloading:*|deactivating:*) echo "$node running $pid $frozen" ;;
        *) echo "$node absent" ;;
    esac
done
"""
)

# Arguments: node and unit, in turn.
UNITS_LAUNCH = (
    _SYSTEMD
    + """
cd "$here" || exit 1
umask 077
units=
while [ $# -gt 0 ]; do
    mkdir -p "$1" || exit 1
    systemctl $own link --quiet "$here/$2" || exit 1
    units="$units $2"
    shift 2
done
systemctl $own daemon-reload && systemctl $own reset-failed $units 2>/dev/null
systemctl $own enable --quiet $units && systemctl $own start $units
"""
)

# $3: seconds to wait before SIGKILL; 0: SIGKILL at once. Then the names of units.
UNITS_END = (
    _SYSTEMD
    + """
patience=$1
shift
[ "$patience" != 0 ] || systemctl $own kill --signal=KILL "$@" 2>/dev/null
timeout --signal=KILL "$((patience + 10))" systemctl $own stop "$@"
systemctl $own kill --signal=KILL "$@" 2>/dev/null
systemctl $own reset-failed "$@" 2>/dev/null
true
"""
)

# Arguments: the names of units. They are unknown to systemd afterwards.
UNITS_REMOVE = (
    _SYSTEMD
    + """
systemctl $own disable --quiet "$@" 2>/dev/null
for unit in "$@"; do rm -f "$here/$unit"; done
systemctl $own daemon-reload
"""
)
