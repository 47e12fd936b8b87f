"""Brings a topology up on a back end, reads its status, takes it down."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from provision.backends.base import Backend
from provision.backends.folders import is_bare
from provision.backends.registry import in_containers, in_folders
from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.core.locks import exclusive
from provision.deployments import held_writes, launched, swapping
from provision.deployments import status as reading
from provision.deployments.bringup import BringUp, EndedMeanwhile, NotSharded, Plan, Unfinished
from provision.deployments.events import Event, Timing
from provision.deployments.identity import Impostor, dial, dial_or_explain, dial_unnamed
from provision.deployments.launched import Launched
from provision.deployments.rendering import Rendering
from provision.deployments.status import Status
from provision.mongodb import replica_set as replication
from provision.mongodb import users
from provision.mongodb.credentials import Credentials
from provision.mongodb.sharding import ShardedCollection
from provision.mongodb.topology import Node, Role, Topology
from provision.mongodb.waiting import Wait
from provision.mongodb.wire import Connection
from provision.settings.paths import Paths
from provision.state import records, slots
from provision.state.remembered import Extent

if TYPE_CHECKING:
    from provision.mongodb.diagnosis import Salvage

T = TypeVar("T")

_STOP_SECONDS = 30.0
_ASK_SECONDS = 2.0
_ABANDON_SECONDS = 5.0  # a mongod that is still starting may hear a request to end only when it has started
_LOG_LINES = 400


@dataclass(frozen=True)
class Look:
    """Which nodes of a deployment run."""

    running: tuple[Node, ...]  # those that run
    ended: tuple[Node, ...]  # those that don't
    # those that nobody could look at, and why: their host is away, and they may run or not
    unknown: tuple[tuple[Node, ProvisionError], ...]

    def certain(self, doing: str, done: Sequence[Node] = (), again: str = "") -> None:
        """See that nothing about them is unknown.

        Args:
            done: nodes with which it was done.
            again: the command to type when their hosts answer again; empty: the same.

        Raises ProvisionError: naming the nodes that nobody could look at, and why.
        """
        if not self.unknown:
            return
        reasons: dict[str, list[str]] = {}
        for node, error in self.unknown:
            reasons.setdefault(error.cause, []).append(node.name)
        causes = [
            f"It is not known whether {', '.join(names)} runs: {cause}" for cause, names in reasons.items()
        ]
        if done:
            causes.append(f"Done with {_names(done)}.")
        remedies = dict.fromkeys(error.remedy for _, error in self.unknown)
        typed = f"type: {again}" if again else "type the same again."
        raise ProvisionError(doing, "\n".join(causes), "\n".join([*remedies, f"Then {typed}"]))


class NotProved(ProvisionError):
    """New data of a deployment did not start, and what was there before is back. It is stopped."""

    def __init__(self, what: str, deployment: str, error: ProvisionError) -> None:
        super().__init__(
            f"starting {deployment} on the data of {what}",
            f"{error.doing}: {error.cause}\nThe data from before are back.",
            error.remedy,
            error.log_lines,
        )


@dataclass(frozen=True)
class Up:
    """What `up` did."""

    deployment: str
    started: tuple[str, ...]  # names of the nodes that it started; empty: all were running
    uri: str  # the connection string without a password, proved by a majority write
    timings: tuple[Timing, ...]  # what was reached when
    notices: tuple[str, ...] = ()  # what was found and left as it is


class Deployment:
    """A topology on a back end.

    Args:
        template: text of ``mongod.conf.j2``.
        start_timeout: seconds until `up` gives up.
        auth: it has a key file and users.
        app_database: the database on which the app's user has rights.
        collections: the collections that `up` shards.
        extent: what it consists of, with what `up` adds; None: that is not recorded.
        program: what its nodes run if they are launched now: ``"mongod 8.0.17"``, or a Docker image.
        notices: where it is left as it is although the settings ask for something else.
        conflict: why `up` can't bring about what the settings ask for, as it runs, or has data, with others.
        restart_applies: a restart brings that about.
        certify: makes the authority that vouches for its hosts, where that is missing; None: it has no TLS.
        finish: starts a process that finishes an `up` that returned early, given the descriptor of the lock that
            it is to hold on.
    """

    def __init__(
        self,
        topology: Topology,
        backend: Backend,
        paths: Paths,
        template: str,
        start_timeout: float = 60.0,
        *,
        auth: bool = False,
        app_database: str = "app",
        collections: tuple[ShardedCollection, ...] = (),
        extent: Extent | None = None,
        program: str = "",
        notices: tuple[str, ...] = (),
        conflict: ProvisionError | None = None,
        restart_applies: bool = True,
        certify: Callable[[], object] | None = None,
        finish: Callable[[int], None] | None = None,
    ) -> None:
        self.topology = topology
        self.backend = backend
        self.rendering = Rendering(topology, backend, paths, template)
        self._paths = paths
        self._start_timeout = start_timeout
        self._auth = auth
        self._app_database = app_database
        self.collections = collections
        self._extent = extent
        self.kept = notices
        self._program = program
        self._template = template
        self.conflict = conflict
        self.restart_applies = restart_applies
        self._certify = certify
        self._finish = finish

    @property
    def name(self) -> str:
        return self.topology.name

    @property
    def paths(self) -> Paths:
        """Where its records and data are."""
        return self._paths

    @property
    def program(self) -> str:
        """What its nodes run if they are launched now: ``"mongod 8.0.17"``, or a Docker image."""
        return self._program

    def node(self, name: str = "") -> Node:
        """The node of that name; with no name, the first.

        Raises ProvisionError: there is none.
        """
        nodes = {node.name: node for node in self.topology.nodes}
        if not name:
            return self.topology.nodes[0]
        if name not in nodes:
            raise ProvisionError(
                f"looking up node {name!r} of {self.name}",
                f"Its nodes are {', '.join(nodes)}.",
                "Name one of them.",
            )
        return nodes[name]

    def secrets(self) -> users.Secrets | None:
        """Its secrets; None where it has no authentication, or was never up."""
        return users.existing(self._paths, self.name) if self._auth else None

    def uri(
        self,
        database: str = "",
        *,
        user: str | None = None,
        audience: str = "host",
        direct: Node | None = None,
    ) -> str:
        """A connection string.

        Args:
            database: the default database; empty: none.
            user: ``app`` or ``root``, with its password; None: nobody.
            audience: ``host``: programs on this machine; ``container``: containers in its network.
            direct: this node alone.

        Raises ProvisionError: it has users, and was never up.
        """
        credentials: Credentials | None = None
        if self._auth and user is not None:
            secrets = self.secrets()
            if secrets is None:
                raise ProvisionError(
                    f"looking up the password of {user} on {self.name}",
                    "Its users are created when it is first up.",
                    f"Type `invoke start --on {self.name}` first.",
                )
            credentials = secrets.user(user)
        seeds = (direct,) if direct else self.topology.seeds
        addresses = None
        if audience == "host" and not self.backend.advertised_names_resolve(seeds):
            addresses = {node.name: "{}:{}".format(*self.backend.address(node)) for node in seeds}
            if not self.topology.is_sharded and direct is None:
                # The driver would go on to names that this machine can't resolve.
                direct = self.primary(seconds=1.0) or seeds[0]
        tls_ca = str(self._paths.ca_certificate(self.name)) if self._certify is not None else None
        return self.topology.uri(
            database, credentials=credentials, addresses=addresses, direct=direct, tls_ca=tls_ca
        )

    def ensure_secrets(self) -> None:
        """Generate the secrets where that was not done: a person who will log in may know them before it is up."""
        if self._auth and self.secrets() is None:
            with self._locked("preparing"):
                users.ensure(self._paths, self.name)

    def prepare(self) -> list[str]:
        """Render configuration and generate secrets, where that was not done; starts nothing.

        Returns: Names of the nodes whose configuration was written.
        """
        if self._auth:
            users.ensure(self._paths, self.name)
        if self._certify is not None:
            self._certify()
        return self.rendering.write()

    def _plan(self) -> Plan:
        return Plan(
            self.topology,
            self.secrets(),
            self._app_database,
            self.collections,
            frozenset(self._initiated()),
            self._start_timeout,
        )

    @contextlib.contextmanager
    def _taken_back(self, missing: Sequence[Node], bring_up: BringUp) -> Iterator[None]:
        """Have what the block starts ended, and its record restored, unless all of the block is done.

        Also where it was interrupted when all had been started and noting that was under way: the caller does not know
        then that anything runs.
        """
        before = Extent.recorded(self._paths, self.name)
        Extent.record(self._paths, self.name, self._extent)
        try:
            yield
        except BaseException:
            self._undo(missing)
            # Nodes that were launched may be part of something by now; one alone is as it was before.
            if before is None or not bring_up.launched or len(self.topology.nodes) == 1:
                Extent.record(self._paths, self.name, before)
            raise

    def up(
        self,
        say: Callable[[str], None] = lambda _: None,
        reached: Callable[[Event], None] = lambda _: None,
        until_healthy: bool = True,
        holding: bool = False,
        started: Callable[[], None] = lambda: None,
    ) -> Up:
        """Start what is not running, and return when the whole is healthy and a majority write was acknowledged.

        Args:
            until_healthy: False: return as soon as a majority write was acknowledged. A process in the background
                does the rest; other commands on this deployment wait for it.
            holding: this process holds the deployment's lock already.
            started: told when it is up, if anything was started: what is interrupted before that is taken back. Also where
                NotSharded is raised then.

        Raises:
            NotSharded: it is up, and stays up; some collection could not be sharded.
            ProvisionError: naming the node at fault, with its last log lines.
        """
        if self.conflict is not None:
            raise self.conflict
        begun = time.monotonic()
        timings: list[Timing] = []
        guard = threading.Lock()

        def note(event: Event) -> None:
            with guard:
                timings.append(Timing(event, time.monotonic() - begun))
                reached(event)

        with contextlib.nullcontext(-1) if holding else self._locked("starting", say) as lock:
            self.prepare()
            swap = self.settle()
            with self._proving(swap):
                done, refused = _until_it_stays_up(
                    lambda: self._bring_up(say, note, timings, until_healthy, started),
                    lambda node: self.backend.remove([node], data=True),
                    say,
                )
            self._note_up(done.uri)
            if not until_healthy and self._finish is not None and len(self.topology.nodes) > 1:
                self._finish(lock)
            if refused is not None:
                raise refused
        return done

    def _bring_up(
        self,
        say: Callable[[str], None],
        note: Callable[[Event], None],
        timings: list[Timing],
        until_healthy: bool,
        started: Callable[[], None],
    ) -> tuple[Up, NotSharded | None]:
        nodes = self.topology.nodes
        look = self.look(nodes)
        look.certain(f"starting {self.name}")
        missing = look.ended
        for node in nodes:
            if node not in missing and self.backend.release(node):
                say(f"{node.name} was paused or cut off, and goes on")
        if missing:
            say(f"Starting {self.name} ({_names(missing)})")
            # The one that starts it now stops it.
            self._paths.run_record(self.name).unlink(missing_ok=True)
        bring_up = BringUp(self._plan(), self.backend, self._telling_lines, self._death, note, say)
        refused: NotSharded | None = None
        with self._taken_back(missing, bring_up):
            try:
                bring_up.run(missing, until_healthy)
            except NotSharded as refusal:
                refused = refusal  # what is up is not at fault
            self._remember_initiated()
            self._record_launch(missing)
            differing = self._differing(node.name for node in nodes if node not in missing)
            done = Up(
                self.name,
                tuple(node.name for node in missing),
                self.uri(),
                tuple(sorted(timings, key=lambda each: each.seconds)),
                (*differing, *self.kept, *self._notices()),
            )
            if missing:
                started()
        return done, refused

    def settle(self) -> swapping.Swap | None:
        """Complete what a command on its data has left that was cut off. The caller holds the lock.

        Returns: The swap whose data are in place and not proved: the caller brings the deployment up.
        Raises ProvisionError: it can't be completed.
        """
        self._release_held()
        if swapping.pending(self._paths, self.name) is None:
            return None
        folders = self.backend.folders()
        assert folders is not None  # noqa: S101 — it has begun the swap
        try:
            return swapping.settle(self._paths, self.name, folders, self.topology.nodes)
        except OSError as problem:
            raise ProvisionError(
                f"completing a restore of {self.name} that was cut off",
                f"{problem.filename or 'Its data'}: {problem.strerror or problem}.",
                "Correct that, then type the same again: no data are lost.",
            ) from None

    def _release_held(self) -> None:
        """Let nodes write again that a snapshot has locked, where its process and the one that watched it were killed."""
        record = records.HELD.read(self._paths, self.name)
        if record is None:
            return
        names = record.get("nodes", ())
        if stuck := held_writes.release(
            self.targets([each for each in self.topology.nodes if each.name in names])
        ):
            raise ProvisionError(
                f"letting {self.name} write again after a snapshot that was cut off",
                f"{', '.join(stuck)} does not answer.",
                f"Stop it and start it: invoke restart --on {self.name}",
            )
        records.HELD.write(self._paths, None, self.name)

    @contextlib.contextmanager
    def watched(self, nodes: Sequence[Node], lock: int) -> Iterator[None]:
        """Have what the block holds on nodes, or stops on a router, released if this process ends within it, however.

        `lock`: descriptor of the deployment's lock.
        Raises OSError: what watches over it can't be started.
        """
        with held_writes.watched(self.targets(nodes), lock):
            records.HELD.write(self._paths, {"nodes": [node.name for node in nodes]}, self.name)
            try:
                yield
            finally:
                records.HELD.write(self._paths, None, self.name)

    def targets(self, nodes: Sequence[Node]) -> list[held_writes.Target]:
        """Nodes, as the process that watches over a snapshot reaches them."""
        secrets = self.secrets()
        return [
            held_writes.Target(
                *self.backend.address(node),
                None if secrets is None else secrets.root if node.is_router else secrets.system,
                node.is_router,
            )
            for node in nodes
        ]

    def end_all(self) -> None:
        """Stop every node that runs. The caller holds the lock.

        Raises ProvisionError: nobody can look at one of them.
        """
        look = self.look(self.topology.nodes)
        look.certain(f"stopping {self.name}")
        self._stop(look.running, ends_by_removal=False)

    def _start_balancer(self) -> None:
        from provision.mongodb import sharding
        from provision.mongodb.wire import CommandFailed, NotReachable

        try:
            with self.dial(self.topology.routers[0]) as router:
                sharding.start_balancer(router)
        except (NotReachable, CommandFailed) as problem:
            raise ProvisionError(
                f"starting the balancer of {self.name}",
                str(problem),
                f"Look at `invoke logs --on {self.name}`.",
            ) from None

    @contextlib.contextmanager
    def _proving(self, swap: swapping.Swap | None) -> Iterator[None]:
        """Keep new data that the block has started and proved; put back what was there where that fails.

        An interruption leaves them as they are: the next start proves them.
        """
        if swap is None:
            yield
            return
        folders = self.backend.folders()
        assert folders is not None  # noqa: S101 — it has begun the swap
        try:
            yield
            if swap.balanced:
                self._start_balancer()
        except ProvisionError as error:
            self.end_all()
            swapping.go_on(self._paths, self.name, folders, self.topology.nodes, swap, swapping.BACK)
            raise NotProved(swap.what, self.name, error) from error
        swapping.go_on(self._paths, self.name, folders, self.topology.nodes, swap, swapping.KEEP)

    def down(
        self,
        say: Callable[[str], None] = lambda _: None,
        *,
        remove: bool = False,
        delete_data: bool = False,
    ) -> tuple[str, ...]:
        """Stop every node that runs. Data stay, unless `delete_data` says otherwise.

        Nodes that nobody can look at keep none of the others from being stopped; then they are an error.

        Args:
            remove: remove what the nodes ran in, too (containers and their network).
            delete_data: delete their data; implies `remove`.

        Returns: Names of the nodes that were stopped.
        Raises ProvisionError: naming the nodes that may still run, because their hosts are away.
        """
        with self._locked("stopping", say):
            with contextlib.suppress(ProvisionError):
                self._release_held()  # one that is locked would not end
            look = self.look(self.topology.nodes)
            running = look.running
            if running:
                say(f"Stopping {self.name} ({_names(running)})")
            removes = remove or delete_data
            flushes = remove and self.backend.capabilities.may_be_killed_after_flush
            at_once = delete_data or (flushes and self._flush(running))
            if not at_once:
                self._stop(running, ends_by_removal=removes)
            if removes:
                self.backend.remove(self.topology.nodes, delete_data, at_once)
            else:
                look.certain(f"stopping {self.name}", running, f"invoke stop --on {self.name}")
            if delete_data:
                if (folders := self.backend.folders()) is not None:
                    folders.forget(self.topology.nodes)
                records.forget(self._paths, self.name)
            slots.went_down(self._paths, self.name, forget=delete_data)
        return tuple(node.name for node in running)

    def look(self, nodes: Sequence[Node]) -> Look:
        """Which of some nodes run, and of which nobody can say that now."""
        observed = self.backend.observe_all(nodes)
        unknown = [(node, observed[node.name].unknown) for node in nodes]
        return Look(
            tuple(node for node in nodes if observed[node.name].running),
            tuple(node for node in nodes if observed[node.name].ended),
            tuple((node, error) for node, error in unknown if error is not None),
        )

    def running(self, nodes: Sequence[Node]) -> list[Node]:
        """Those of some nodes that are known to run."""
        return list(self.look(nodes).running)

    def start_node(self, node: Node) -> None:
        """Start one node and leave the rest of the deployment as it is.

        Raises ProvisionError: it can't be launched.
        """
        self.start_nodes([node])

    def start_nodes(self, nodes: Sequence[Node]) -> None:
        """The same for several nodes, at once.

        Raises ProvisionError: one can't be launched.
        """
        with self._locked(f"starting {', '.join(node.name for node in nodes)} of"):
            self.prepare()
            self.launch(nodes)

    def launch(self, nodes: Sequence[Node]) -> None:
        """Have the back end launch nodes, and note what they were launched with. The caller holds the lock.

        Raises ProvisionError: one can't be launched.
        """
        self.settle()
        self.backend.launch(nodes)
        self._record_launch(nodes)

    def differences(self, running: Sequence[Node] | None = None) -> tuple[str, ...]:
        """How what runs differs from what the settings ask for, a sentence each, with the command that applies it.

        `running`: the nodes that run; None: they are looked for.
        """
        if self.conflict is not None:
            return (f"{self.conflict.cause} {self.conflict.remedy}",)
        if running is not None:
            return tuple(self._differing(node.name for node in running))
        if not self._differing(node.name for node in self.topology.nodes):
            return ()  # whatever of it runs
        return tuple(self._differing(node.name for node in self.running(self.topology.nodes)))

    def _differing(self, running: Iterable[str]) -> list[str]:
        names = list(running)
        present = launched.recorded(self._paths, self.name) if names else {}
        return launched.notices(self.name, names, present, self._to_launch()) if present else []

    def _to_launch(self) -> dict[str, Launched]:
        """Node name → what it would be launched with now."""
        return {
            node.name: Launched.of(node, self.backend.layout(node), self._program, self._template)
            for node in self.topology.nodes
        }

    def _record_launch(self, nodes: Sequence[Node]) -> None:
        if nodes:
            asked = self._to_launch()
            launched.record(self._paths, self.name, {node.name: asked[node.name] for node in nodes})

    def _note_up(self, uri: str) -> None:
        """Put it on the list of this user's environments."""
        observed = self.backend.observe_all(self.topology.nodes)
        nodes = slots.nodes_up(
            (each.name, each.port, observed[each.name].pid) for each in self.topology.nodes
        )
        docker = in_containers(self.backend)
        project = docker.compose_project if docker is not None else None
        slots.came_up(self._paths, self.name, slots.DeploymentUp(self.backend.name, uri, nodes, project))

    def until_listening(self, node: Node) -> None:
        """Wait until a node that was started answers.

        Raises ProvisionError: it died, or did not answer in time.
        """

        def check_alive() -> None:
            observed = self.backend.observe(node)
            if observed.unknown is not None:
                raise observed.unknown
            if observed.ended:
                raise self._death(node, observed.exit_status)

        deadline = time.monotonic() + self._start_timeout
        waiting = Wait(deadline, self._start_timeout, check_alive, lambda: self._telling_lines(node))
        secrets = self.secrets()
        replication.listening(
            node, lambda each: dial_or_explain(self.backend, secrets, each), waiting
        ).close()

    def stop_node(self, node: Node) -> None:
        """Stop one node as its operator would (SIGTERM)."""
        with self._locked(f"stopping {node.name} of"):
            self.backend.terminate([node], _STOP_SECONDS)

    def kill_node(self, node: Node) -> None:
        """End one node as a crash would (SIGKILL)."""
        with self._locked(f"killing {node.name} of"):
            self.backend.kill(node)

    def status(self) -> Status:
        """Read the state of every node; changes nothing."""
        found = reading.read(self.topology, self.backend, self.dial, self.uri())
        running = [self.node(each.name) for each in found.nodes if each.state != "DOWN"]
        return replace(found, notes=(*self.differences(running), *self._started_by_hand(found)))

    def _started_by_hand(self, found: Status) -> Iterator[str]:
        processes = in_folders(self.backend)
        if found.state != "stopped" or processes is None:
            return
        for node in self.topology.nodes:
            if (pid := processes.started_by_hand(node)) is not None:
                yield (
                    f"A mongod that was started by hand (process {pid}) uses the data of {node.name}. Nothing has "
                    f"initiated it as a replica set. End it, then have the tool start it: "
                    f"kill {pid}; invoke start --on {self.name}"
                )

    def dial(self, node: Node, timeout: float = 10.0) -> Connection:
        """A direct connection to a node, as the user who may manage it.

        Raises:
            NotReachable: it does not answer, or another program has its port.
            CommandFailed: it refused the credentials.
        """
        return dial(self.backend, self.secrets(), node, timeout)

    def dial_unnamed(self, node: Node, timeout: float) -> Connection:
        """The same as nobody, encrypted where it must be: what a node says of itself without a log-in.

        Raises NotReachable: it does not answer.
        """
        return dial_unnamed(self.backend, self.secrets(), node, timeout)

    def check_answers(self, nodes: Sequence[Node], doing: str) -> None:
        """See that no other program has the port of a node that runs. One that does not answer passes.

        `nodes`: those that clients are about to connect to.

        Raises ProvisionError: naming the program.
        """
        from provision.mongodb.wire import CommandFailed, NotReachable

        for node in self.running(nodes):
            try:
                self.dial(node, _ASK_SECONDS).close()
            except Impostor as impostor:
                raise ProvisionError(doing, impostor.error.cause, impostor.error.remedy) from None
            except (NotReachable, CommandFailed):
                continue

    def log(self, node: Node, lines: int, follow: bool) -> Iterator[str]:
        """A node's raw log lines.

        Args:
            lines: how many of the last ones.
            follow: go on with each new one.
        """
        return self.backend.follow_log(node, lines) if follow else iter(self.backend.log_tail(node, lines))

    def holding(
        self, doing: str, say: Callable[[str], None] | None = None
    ) -> contextlib.AbstractContextManager[int]:
        """Keep other commands from changing it for the length of the block, which works on the back end itself.

        Args:
            doing: the work, told to those who wait for it: ``"restarting"``.
            say: told if another command has to be waited for.
        """
        return self._locked(doing, say)

    @property
    def patience(self) -> float:
        """Seconds that a node may take until it answers."""
        return self._start_timeout

    def telling_lines(self, node: Node) -> list[str]:
        """The last log lines of a node that a person can read, for errors."""
        return self._telling_lines(node)

    def remove_nodes(self, nodes: Sequence[Node], reached: Extent, doing: str) -> None:
        """Stop nodes that are part of nothing any more, and delete what is left of them, their data too.

        Args:
            reached: how large the deployment is without them.
            doing: the work, told to those who wait for it.
        """
        with self._locked(doing):
            self.backend.terminate(nodes, _STOP_SECONDS)
            self.backend.remove(nodes, data=True)
            gone = {node.replica_set for node in nodes}
            left = [name for name in self._initiated() if name not in gone]
            records.INITIATED.write(self._paths, {"replica_sets": left}, self.name)
            Extent.record(self._paths, self.name, reached)

    def _locked(
        self, doing: str, say: Callable[[str], None] | None = None
    ) -> contextlib.AbstractContextManager[int]:
        return exclusive(self._paths.lock(f"deployment-{self.name}"), f"{doing} {self.name}", say)

    def _stop(self, nodes: Sequence[Node], ends_by_removal: bool) -> None:
        """End nodes, the config servers last: a shard that has lost them waits half a minute for them as it ends.

        All of a group at once, and no primary waits for a secondary that is ending, too. What a majority has
        acknowledged is in the journals of a majority.
        """
        groups = (
            [node for node in nodes if node.role is not Role.CONFIG],
            [node for node in nodes if node.role is Role.CONFIG],
        )
        present = [group for group in groups if group]
        for group in present:
            with ThreadPoolExecutor(max_workers=len(group)) as pool:
                list(pool.map(self._ask_to_end, group))
            if not (ends_by_removal and group is present[-1]):
                self.backend.terminate(group, _STOP_SECONDS)

    def _flush(self, nodes: Sequence[Node]) -> bool:
        """Have all that a sharded cluster has acknowledged written to disk, after which it may be ended as by a crash.

        A mongod of a replica set takes up to a second to shut down, and config servers have to follow the shards. Once
        the routers have ended, no client writes any more, and what is flushed then is all there is. Members that
        clients write to without a router are shut down instead.

        Follows https://www.mongodb.com/docs/manual/reference/command/fsync/
        """
        routers = [node for node in nodes if node.is_router]
        if not routers:
            return False
        with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            list(pool.map(self._ask_to_end, routers))
            return all(pool.map(self._flush_one, [node for node in nodes if not node.is_router]))

    def _flush_one(self, node: Node) -> bool:
        from provision.mongodb.wire import CommandFailed, NotReachable

        if node.arbiter:
            return True
        if self.backend.is_paused(node):
            return False
        try:
            with self.dial(node, _ASK_SECONDS) as connection:
                connection.command("admin", {"fsync": 1}, timeout=_STOP_SECONDS)
        except (NotReachable, CommandFailed):
            return False
        return True

    def _ask_to_end(self, node: Node) -> None:
        """Have a node shut down now; one that is paused, refuses or does not answer is left to the back end.

        https://www.mongodb.com/docs/manual/reference/command/shutdown/
        """
        from provision.mongodb.wire import CommandFailed, NotReachable

        if self.backend.is_paused(node):
            return
        command = {"shutdown": 1, "timeoutSecs": 0} | ({} if node.is_router else {"force": True})
        # It answers by closing the connection.
        with contextlib.suppress(NotReachable, CommandFailed), self.dial(node, _ASK_SECONDS) as connection:
            connection.command("admin", command, timeout=_STOP_SECONDS)

    def _undo(self, started: Sequence[Node]) -> None:
        """What a failed `up` started is not left half-started."""
        with contextlib.suppress(
            ProvisionError
        ):  # what made `up` fail is told, and may be what fails here, too
            self.backend.terminate(started, _ABANDON_SECONDS)
            if len(started) == len(self.topology.nodes):
                self.backend.remove(started, data=False)

    def primary(self, nodes: Sequence[Node] | None = None, seconds: float = 2.0) -> Node | None:
        """The primary of some nodes (default: those that clients are told of); None: none of them says that it is.

        `seconds`: how long one of them may take to answer.
        """
        from provision.mongodb.membership import find_primary

        asked = self.topology.seeds if nodes is None else nodes
        bearing = (node for node in asked if not node.arbiter)
        found = find_primary((node, functools.partial(self.dial, node, seconds)) for node in bearing)
        if found is None:
            return None
        found[1].close()
        return found[0]

    def _initiated(self) -> list[str]:
        return list((records.INITIATED.read(self._paths, self.name) or {}).get("replica_sets", ()))

    def _remember_initiated(self) -> None:
        names = sorted({*self._initiated(), *(each.name for each in self.topology.all_sets)})
        if names != self._initiated():
            records.INITIATED.write(self._paths, {"replica_sets": names}, self.name)

    def _notices(self) -> Iterator[str]:
        """Where the deployment is larger than its settings: `up` never takes members or shards away."""
        from provision.mongodb import sharding
        from provision.mongodb.wire import CommandFailed, NotReachable

        if not self.topology.is_sharded:
            return
        planned = {each.name for each in self.topology.replica_sets}
        try:
            with self.dial(self.topology.routers[0]) as router:
                present = {str(each["_id"]) for each in sharding.shards(router)}
        except (NotReachable, CommandFailed):
            return
        for extra in sorted(present - planned):
            yield (
                f"{extra} is a shard of the cluster and not in the settings. It stays as it is: "
                f"`invoke cluster.remove-shard {extra} --on {self.name}` drains and removes it."
            )

    def _telling_lines(self, node: Node) -> list[str]:
        from provision.mongodb.logs import why_it_died

        return why_it_died(self.backend.log_tail(node, _LOG_LINES))

    def _death(self, node: Node, status: int | None) -> ProvisionError:
        from provision.mongodb.diagnosis import explain_death

        log = self.backend.log_tail(node, _LOG_LINES)
        if any("Address already in use" in line for line in log):
            held = self.backend.port_held(node)
            if held is not None:
                return held
        cause, remedy = explain_death(status, log, self.backend.layout(node), self.salvage(node))
        kind = "mongos" if node.is_router else "mongod"
        machine = self.backend.machine(node)
        place = f"port {node.port}" + (f" of {machine}" if machine else "")
        death = ProvisionError(
            f"starting {kind} {node.name} of {self.name} on {place}",
            cause,
            remedy,
            self._telling_lines(node),
        )
        return Unfinished(node, death) if self._holds_nothing(node, log) else death

    def _holds_nothing(self, node: Node, log: Sequence[str]) -> bool:
        """Whether a node's data are known to hold nothing: MongoDB was making them, for a set that there never was."""
        from provision.mongodb.diagnosis import is_unfinished

        return (
            in_folders(self.backend) is not None
            and is_unfinished(log)
            and node.replica_set not in self._initiated()
            and node.name not in (records.LAUNCHED.read(self._paths, self.name) or {})
            and is_bare(self._paths.node_data(self.name, node.name))
        )

    def salvage(self, node: Node) -> Salvage:
        """What can be done about a node's data where they are corrupt."""
        from provision.mongodb.diagnosis import Salvage

        members = self.topology.set_of(node)
        others = members is not None and sum(not each.arbiter for each in members.members) > 1
        record = records.NODE.load(self._paths.node_record(self.name, node.name)) or {}
        return Salvage(
            self.name,
            self.backend.capabilities.keeps_folders,
            str(record.get("mongod", "mongod")),
            others,
            node.replica_set,
        )


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)


def _until_it_stays_up(
    bring_up: Callable[[], T], remove: Callable[[Node], None], say: Callable[[str], None]
) -> T:
    """Bring up, and again for each node that ends meanwhile.

    A node that a killed command had asked to end is seen to run, and ends a moment later: all is looked at again then.
    Data that an interrupted first start has left are removed, and made anew.
    """
    ended: set[str] = set()
    while True:
        try:
            return bring_up()
        except (EndedMeanwhile, Unfinished) as death:
            name = death.node.name
            if name in ended:
                raise
            ended.add(name)
            if isinstance(death, Unfinished):
                remove(death.node)
                say(
                    f"The first start of {name} was cut off: its data files, which held nothing, are made anew"
                )
            else:
                say(f"{name} was ending, and is started again")
