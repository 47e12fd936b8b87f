"""The stand-in for mongos, in front of a real cluster: a config server and shards, each a real mongod."""

from __future__ import annotations

import base64
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mongod(mongod_binary: Path) -> Path:
    return mongod_binary


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class LocalCluster:
    """One config server and two shards as processes, and a router stand-in in front of them."""

    mongod: Path
    folder: Path
    auth: bool
    members: int = 1
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, list[int]] = field(default_factory=dict)
    router: int = 0
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def start(self) -> None:
        if self.auth:
            self.key_file.write_text(base64.b64encode(secrets.token_bytes(60)).decode())
            self.key_file.chmod(0o400)
        numbers = iter(free_ports(3 + 2 * self.members))
        self.router = next(numbers)
        self.ports = {
            "cfg": [next(numbers)],
            "shA": [next(numbers) for _ in range(self.members)],
            "shB": [next(numbers)],
        }
        for name, ports in self.ports.items():
            for port in ports:
                self.start_mongod(name, port)
        for name, ports in self.ports.items():
            for port in ports:
                self.await_port(port)
            self.initiate(name, ports)
        self.start_router()
        for name in ("shA", "shB"):
            self.client.admin.command("addShard", self.connection_string(name), name=name)

    @property
    def key_file(self) -> Path:
        return self.folder / "key"

    def connection_string(self, name: str) -> str:
        return f"{name}/" + ",".join(f"127.0.0.1:{port}" for port in self.ports[name])

    def start_mongod(self, name: str, port: int) -> None:
        data = self.folder / f"{name}-{port}"
        data.mkdir(exist_ok=True)
        role = "--configsvr" if name == "cfg" else "--shardsvr"
        argv = [str(self.mongod), role, "--replSet", name, "--port", str(port), "--dbpath", str(data),
                "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "16",
                "--logpath", str(data / "mongod.log")]  # fmt: skip
        if self.auth:
            argv += ["--keyFile", str(self.key_file)]
        self.processes[port] = subprocess.Popen(argv, stdout=subprocess.DEVNULL)

    def await_port(self, port: int) -> None:
        def ready() -> bool:
            assert self.processes[port].poll() is None, f"the process for port {port} ended: {self.folder}"
            return listens(port)

        until(ready, f"port {port}")

    def system_client(self, port: int) -> pymongo.MongoClient[dict[str, Any]]:
        """A client that is the cluster itself, connected to one member."""
        if not self.auth:
            return pymongo.MongoClient("127.0.0.1", port, directConnection=True)
        return pymongo.MongoClient("127.0.0.1", port, directConnection=True, username="__system",
                                   password=self.key_file.read_text(), authSource="local",
                                   authMechanism="SCRAM-SHA-256")  # fmt: skip

    def initiate(self, name: str, ports: list[int]) -> None:
        members = [{"_id": n, "host": f"127.0.0.1:{port}", "priority": 5 if n == 0 else 1}
                   for n, port in enumerate(ports)]  # fmt: skip
        config = {"_id": name, "members": members, "settings": {"electionTimeoutMillis": 2000}}
        if name == "cfg":
            config["configsvr"] = True
        with self.system_client(ports[0]) as client:
            client.admin.command("replSetInitiate", config)
            until(lambda: client.admin.command("hello")["isWritablePrimary"], f"a primary of {name}")
            if name == "cfg" and self.auth:
                client.admin.command("createUser", "root", pwd=self.password, roles=["root"])

    def start_router(self) -> None:
        config = self.folder / "mongos.conf"
        config.write_text(
            f"sharding:\n  configDB: {self.connection_string('cfg')}\n"
            f"net:\n  port: {self.router}\n  bindIp: 127.0.0.1\n  unixDomainSocket:\n    pathPrefix: {self.folder}\n"
            f"systemLog:\n  destination: file\n  path: {self.folder / 'mongos.log'}\n  logAppend: true\n"
            + (f"security:\n  keyFile: {self.key_file}\n" if self.auth else "")
        )
        self.processes[self.router] = subprocess.Popen(
            [sys.executable, "-m", "tests.support.router_standin", "--config", str(config)], cwd=REPOSITORY
        )
        self.await_port(self.router)

    def connect(self, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        if self.auth and "username" not in options:
            options |= {"username": "root", "password": self.password}
        return pymongo.MongoClient("127.0.0.1", self.router, **options)

    @cached_property
    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return self.connect()

    def count_on(self, name: str, database: str, collection: str) -> int:
        with self.system_client(self.ports[name][0]) as client:
            return client[database][collection].count_documents({})

    def stop(self) -> None:
        if "client" in self.__dict__:  # made on first use
            self.client.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(scope="module", params=[False, True], ids=["no-auth", "keyfile"])
def cluster(
    request: pytest.FixtureRequest, mongod: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    made = LocalCluster(mongod, tmp_path_factory.mktemp("cluster"), request.param)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def database(cluster: LocalCluster) -> Iterator[Any]:
    name = f"t{secrets.token_hex(4)}"
    yield cluster.client[name]
    cluster.client.drop_database(name)


def shard(cluster: LocalCluster, database: Any, collection: str, key: dict[str, Any], **more: Any) -> Any:
    return cluster.client.admin.command("shardCollection", f"{database.name}.{collection}", key=key, **more)


def test_drivers_take_it_for_a_mongos(cluster: LocalCluster) -> None:
    hello = cluster.client.admin.command("hello")
    assert (hello["msg"], hello["isWritablePrimary"]) == ("isdbgrid", True)
    assert "setName" not in hello
    assert cluster.client.topology_description.topology_type_name == "Sharded"
    assert cluster.client.server_info()["version"].count(".") == 2
    assert cluster.client.admin.command("serverStatus")["process"] == "mongos"


def test_an_unknown_command_is_refused_as_mongos_refuses_it(cluster: LocalCluster) -> None:
    with pytest.raises(OperationFailure) as caught:
        cluster.client.admin.command("noSuchCommand")
    assert (caught.value.code, caught.value.details["codeName"]) == (59, "CommandNotFound")
    with pytest.raises(OperationFailure, match="not supported through mongos"):
        cluster.client.admin.command("replSetGetStatus")


@pytest.mark.parametrize(
    "command",
    [
        {"addShardToZone": "shA", "zone": "z"},
        {"updateZoneKeyRange": "t.t", "min": {"x": 0}, "max": {"x": 1}, "zone": "z"},
        {"removeShardFromZone": "shA", "zone": "z"},
        {"split": "t.t", "middle": {"x": 1}},
        {"balancerStart": 1},
        {"listShards": 1},
    ],
    ids=lambda command: next(iter(command)),
)
def test_a_write_concern_is_refused_where_mongos_refuses_it(
    cluster: LocalCluster, command: dict[str, Any]
) -> None:
    with pytest.raises(OperationFailure, match="Command does not support writeConcern") as caught:
        cluster.client.admin.command({**command, "writeConcern": {"w": "majority"}})
    assert (caught.value.code, caught.value.details["codeName"]) == (72, "InvalidOptions")


def test_a_field_and_a_command_that_this_version_lacks_are_refused(cluster: LocalCluster) -> None:
    with pytest.raises(OperationFailure) as caught:
        cluster.client.admin.command("addShardToZone", "shA", zone="z", colour="red")
    assert caught.value.code == 40415
    with pytest.raises(OperationFailure) as caught:
        cluster.client.admin.command("startShardDraining", "shA")
    assert caught.value.code == 59


def test_documents_of_a_hashed_collection_really_lie_on_both_shards(
    cluster: LocalCluster, database: Any
) -> None:
    assert (
        shard(cluster, database, "people", {"_id": "hashed"})["collectionsharded"]
        == f"{database.name}.people"
    )
    database.people.insert_many([{"_id": n, "age": n % 80} for n in range(3000)], ordered=False)
    parts = [cluster.count_on(name, database.name, "people") for name in ("shA", "shB")]
    assert sum(parts) == 3000
    assert min(parts) > 1000
    assert database.people.count_documents({"age": {"$lt": 40}}) == 1520
    assert database.people.estimated_document_count() == 3000
    assert [found["_id"] for found in database.people.find().sort("_id").batch_size(100)] == list(range(3000))
    stats = database.command("collStats", "people")
    assert {name: part["count"] for name, part in stats["shards"].items()} == dict(
        zip(("shA", "shB"), parts, strict=True)
    )
    assert (stats["sharded"], stats["count"]) == (True, 3000)
    by_shard = {s["shard"]: s["count"] for s in database.people.aggregate([{"$collStats": {"count": {}}}])}
    assert by_shard == dict(zip(("shA", "shB"), parts, strict=True))
    assert database.command("dbStats")["objects"] == 3000


def test_bulk_writes_updates_and_deletes_are_routed(cluster: LocalCluster, database: Any) -> None:
    shard(cluster, database, "things", {"_id": "hashed"})
    result = database.things.bulk_write(
        [*(pymongo.InsertOne({"_id": n, "n": n}) for n in range(500)),
         pymongo.UpdateMany({"n": {"$lt": 100}}, {"$set": {"small": True}}),
         pymongo.UpdateOne({"_id": 900}, {"$set": {"n": 900}}, upsert=True),
         pymongo.DeleteMany({"n": {"$gte": 400, "$lt": 500}})]
    )  # fmt: skip
    assert (result.inserted_count, result.modified_count, result.upserted_count, result.deleted_count) == (
        500,
        100,
        1,
        100,
    )
    with pytest.raises(BulkWriteError) as caught:
        database.things.insert_many([{"_id": 1}, {"_id": 1000}], ordered=False)
    assert [error["code"] for error in caught.value.details["writeErrors"]] == [11000]
    assert database.things.find_one({"_id": 1000})


def test_aggregates_groups_over_shards(cluster: LocalCluster, database: Any) -> None:
    shard(cluster, database, "people", {"_id": "hashed"})
    database.people.insert_many([{"_id": n, "age": n % 10} for n in range(1000)])
    groups = list(
        database.people.aggregate([{"$group": {"_id": "$age", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}])
    )
    assert groups == [{"_id": age, "n": 100} for age in range(10)]


def test_distinct_takes_arrays_apart(cluster: LocalCluster, database: Any) -> None:
    shard(cluster, database, "tags", {"_id": "hashed"})
    database.tags.insert_many(
        [{"t": ["a", "b"]}, {"t": "c"}, {"t": None}, {"x": 1}, {"t": []}, {"u": [{"v": 1}, {"v": 2}]}]
    )
    assert set(database.tags.distinct("t")) == {"a", "b", "c", None}
    assert database.tags.distinct("u.v") == [1, 2]


@pytest.mark.parametrize("sharded", [True, False])
def test_find_and_modify_changes_one_document_and_returns_it(
    cluster: LocalCluster, database: Any, sharded: bool
) -> None:
    if sharded:
        shard(cluster, database, "jobs", {"_id": "hashed"})
    database.jobs.insert_many([{"_id": n, "n": 0} for n in range(20)])
    for n in range(20):
        after = database.jobs.find_one_and_update({"_id": n}, {"$inc": {"n": 1}}, return_document=True)
        assert after == {"_id": n, "n": 1}
    assert database.jobs.find_one_and_update({"_id": 99}, {"$inc": {"n": 1}}) is None
    made = database.jobs.find_one_and_update(
        {"_id": 99}, {"$inc": {"n": 1}}, upsert=True, return_document=True
    )
    assert made == {"_id": 99, "n": 1}
    assert database.jobs.find_one_and_delete({"_id": 99}) == {"_id": 99, "n": 1}
    assert database.jobs.count_documents({}) == 20


def test_an_index_is_created_on_every_shard_and_a_unique_one_must_hold_the_shard_key(
    cluster: LocalCluster, database: Any
) -> None:
    shard(cluster, database, "people", {"email": 1}, unique=True)
    database.people.create_index([("last_name", 1)])
    assert "last_name_1" in database.people.index_information()
    database.people.insert_one({"email": "a@example.org"})
    with pytest.raises(DuplicateKeyError):
        database.people.insert_one({"email": "a@example.org"})
    with pytest.raises(OperationFailure) as caught:
        database.people.create_index([("phone", 1)], unique=True)
    assert caught.value.code == 67
    database.people.drop_index("last_name_1")
    assert "last_name_1" not in database.people.index_information()


def test_mongoengine_saves_updates_and_deletes(cluster: LocalCluster, database: Any) -> None:
    import mongoengine

    class Person(mongoengine.Document):  # type: ignore[misc]
        email = mongoengine.StringField(unique=True)
        age = mongoengine.IntField()
        meta = {"collection": "person", "db_alias": database.name}  # noqa: RUF012

    options = {"username": "root", "password": cluster.password} if cluster.auth else {}
    if options:
        options["authentication_source"] = "admin"
    mongoengine.connect(database.name, alias=database.name, host="127.0.0.1", port=cluster.router,
                        uuidRepresentation="standard", **options)  # fmt: skip
    try:
        person = Person(email="a@example.org", age=30).save()
        with pytest.raises(mongoengine.NotUniqueError):
            Person(email="a@example.org").save()
        Person.objects(email="a@example.org").update_one(inc__age=1)
        person.reload()
        assert person.age == 31
        assert Person.objects(age__lt=40).count() == 1
        person.delete()
        assert Person.objects.count() == 0
    finally:
        mongoengine.disconnect(alias=database.name)


def test_databases_and_collections_are_listed_and_dropped(cluster: LocalCluster, database: Any) -> None:
    database.one.insert_one({})
    database.create_collection("capped", capped=True, size=4096)
    assert set(database.list_collection_names()) == {"one", "capped"}
    assert database.name in cluster.client.list_database_names()
    database.drop_collection("one")
    assert database.list_collection_names() == ["capped"]
    cluster.client.drop_database(database.name)
    assert database.name not in cluster.client.list_database_names()
    assert list(cluster.client["never_made"].things.find()) == []


def test_zones_hold_documents_on_their_shard(cluster: LocalCluster, database: Any) -> None:
    admin = cluster.client.admin
    namespace = f"{database.name}.zoned"
    for name, zone in (("shA", "low"), ("shB", "high")):
        admin.command("addShardToZone", name, zone=zone)
    from bson import MaxKey, MinKey

    admin.command("updateZoneKeyRange", namespace, min={"k": MinKey()}, max={"k": 100}, zone="low")
    admin.command("updateZoneKeyRange", namespace, min={"k": 100}, max={"k": MaxKey()}, zone="high")
    shard(cluster, database, "zoned", {"k": 1})
    database.zoned.insert_many([{"k": n} for n in range(200)])
    assert [cluster.count_on(name, database.name, "zoned") for name in ("shA", "shB")] == [100, 100]


def test_chunks_are_split_and_moved(cluster: LocalCluster, database: Any) -> None:
    admin = cluster.client.admin
    namespace = f"{database.name}.ranged"
    admin.command("enableSharding", database.name, primaryShard="shA")
    shard(cluster, database, "ranged", {"k": 1})
    admin.command("balancerStop")
    try:
        assert admin.command("balancerStatus")["mode"] == "off"
        database.ranged.insert_many([{"k": n} for n in range(100)])
        admin.command("split", namespace, middle={"k": 40})
        admin.command("moveChunk", namespace, find={"k": 70}, to="shB", _waitForDelete=True)
        assert cluster.count_on("shB", database.name, "ranged") == 60
        assert database.ranged.count_documents({}) == 100
        assert sorted(found["k"] for found in database.ranged.find()) == list(range(100))
        assert database.ranged.find_one_and_update(
            {"k": 70}, {"$set": {"moved": True}}, return_document=True
        )["moved"]
    finally:
        admin.command("balancerStart")


def test_config_database_is_read_through_the_router(cluster: LocalCluster) -> None:
    assert {found["_id"] for found in cluster.client.config.shards.find()} == {"shA", "shB"}
    assert {found["_id"] for found in cluster.client.admin.command("listShards")["shards"]} == {"shA", "shB"}


def test_unread_cursors_are_given_up(cluster: LocalCluster, database: Any) -> None:
    database.many.insert_many([{"_id": n} for n in range(300)])
    cursor = database.many.find().batch_size(10)
    next(cursor)
    identifier = cursor.cursor_id
    cursor.close()
    with pytest.raises(OperationFailure) as caught:
        database.command("getMore", identifier, collection="many")
    assert caught.value.code == 43


def test_what_the_standin_cannot_do_is_refused_and_harms_no_shard(
    cluster: LocalCluster, database: Any
) -> None:
    from pymongo.errors import ConfigurationError

    database.things.insert_one({"_id": 1})
    for attempt in (lambda: database.things.watch(), lambda: database.command("explain", {"find": "things"})):
        with pytest.raises(OperationFailure, match="not served by the router stand-in"):
            attempt()
    with pytest.raises(ConfigurationError), cluster.client.start_session() as session:
        database.things.find_one(session=session)
    assert database.things.count_documents({}) == 1


def test_results_are_written_by_out_and_merge(cluster: LocalCluster, database: Any) -> None:
    shard(cluster, database, "many", {"_id": "hashed"})
    database.many.insert_many([{"_id": n} for n in range(100)])
    database.many.aggregate([{"$match": {"_id": {"$lt": 10}}}, {"$out": "few"}])
    assert database.few.count_documents({}) == 10
    database.many.aggregate([{"$match": {"_id": {"$lt": 20}}}, {"$merge": "few"}])
    assert database.few.count_documents({}) == 20


def test_concurrent_clients_are_served(cluster: LocalCluster, database: Any) -> None:
    def work(number: int) -> None:
        for n in range(20):
            database.shared.insert_one({"worker": number, "n": n})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.shared.count_documents({}) == 320


def test_log_lines_are_mongodbs_json(cluster: LocalCluster) -> None:
    import json

    lines = [json.loads(line) for line in (cluster.folder / "mongos.log").read_text().splitlines()]
    waiting = next(line for line in lines if line["id"] == 23016)
    assert (waiting["s"], waiting["c"], waiting["msg"]) == ("I", "NETWORK", "Waiting for connections")
    assert waiting["attr"]["port"] == cluster.router
    assert cluster.password not in (cluster.folder / "mongos.log").read_text()


def test_users_get_the_rights_they_were_given_and_no_more(cluster: LocalCluster, database: Any) -> None:
    if not cluster.auth:
        database.things.insert_one({})  # nobody has to log in
        return
    with cluster.connect(username=None) as anonymous:
        assert anonymous.admin.command("ping")["ok"] == 1
        for attempt in (
            lambda: anonymous.some.things.find_one(),
            lambda: anonymous.some.things.insert_one({}),
            lambda: anonymous.admin.command("listShards"),
            lambda: anonymous.config.shards.find_one(),
        ):
            with pytest.raises(OperationFailure) as caught:
                attempt()
            assert caught.value.code == 13
    with (
        pytest.raises(OperationFailure) as caught,
        cluster.connect(username="root", password="wrong") as wrong,
    ):
        wrong.admin.command("listShards")
    assert caught.value.code == 18
    cluster.client.admin.command(
        "createUser", "app", pwd="app-password", roles=[{"role": "readWrite", "db": database.name}]
    )
    try:
        with cluster.connect(username="app", password="app-password") as app:
            app[database.name].things.insert_one({"_id": 1})
            assert app[database.name].things.count_documents({}) == 1
            assert app.list_database_names() == [database.name]
            for attempt in (lambda: app.other.things.insert_one({}), lambda: app.other.things.find_one(),
                            lambda: app.admin.command("addShard", "x/127.0.0.1:1"),
                            lambda: app.drop_database(database.name),
                            lambda: app.admin.command("createUser", "b", pwd="c", roles=[])):  # fmt: skip
                with pytest.raises(OperationFailure) as caught:
                    attempt()
                assert caught.value.code == 13
    finally:
        cluster.client.admin.command("dropUser", "app")


def test_garbage_on_the_socket_ends_that_connection_only(cluster: LocalCluster) -> None:
    with socket.create_connection(("127.0.0.1", cluster.router)) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        garbage.settimeout(10)
        with suppress(ConnectionResetError):
            assert garbage.recv(100) == b""
    assert cluster.client.admin.command("ping")["ok"] == 1


def test_a_shard_is_drained_and_removed_with_its_progress(mongod: Path, tmp_path: Path) -> None:
    made = LocalCluster(mongod, tmp_path, auth=True)
    try:
        made.start()
        admin, people = made.client.admin, made.client.drained.people
        admin.command("enableSharding", "drained", primaryShard="shA")
        admin.command("shardCollection", "drained.people", key={"_id": "hashed"})
        made.client.moved.things.insert_one({"_id": 1})
        people.insert_many([{"_id": n} for n in range(400)])
        admin.command("movePrimary", "moved", to="shA")
        first = admin.command("removeShard", "shB")
        assert first["state"] == "started"
        states = [first["state"]]

        def finished() -> bool:
            reply = admin.command("removeShard", "shB")
            states.append(reply["state"])
            if reply["state"] == "ongoing":
                assert set(reply["remaining"]) >= {"chunks", "dbs"}
            return bool(reply["state"] == "completed")

        until(finished, "shB to be drained", 90)
        assert "ongoing" in states
        assert [found["_id"] for found in admin.command("listShards")["shards"]] == ["shA"]
        assert people.count_documents({}) == 400
        assert made.client.moved.things.find_one() == {"_id": 1}
    finally:
        made.stop()


def test_writes_go_on_after_a_shard_lost_its_primary(mongod: Path, tmp_path: Path) -> None:
    made = LocalCluster(mongod, tmp_path, auth=True, members=3)
    try:
        made.start()
        made.client.admin.command("enableSharding", "kept", primaryShard="shA")
        made.client.admin.command("shardCollection", "kept.rows", key={"_id": "hashed"})
        rows = made.client.kept.rows.with_options(write_concern=pymongo.WriteConcern("majority"))
        with made.system_client(made.ports["shA"][0]) as first:
            until(lambda: all(m["state"] in (1, 2) for m in first.admin.command("replSetGetStatus")["members"]),
                  "all members to be healthy")  # fmt: skip
        acknowledged: list[int] = []
        failures: list[str] = []

        def write(number: int) -> None:
            try:
                rows.insert_one({"_id": number})
                acknowledged.append(number)
            except (AutoReconnect, OperationFailure) as error:
                failures.append(str(error))

        for number in range(50):
            write(number)
        assert len(acknowledged) == 50
        victim = made.processes[made.ports["shA"][0]]
        victim.kill()
        victim.wait()
        for number in range(50, 100):
            write(number)
        # What was under way may fail; after that, writes reach the new primary by themselves.
        assert acknowledged[-1] == 99
        assert len(failures) <= 5, failures
        assert set(acknowledged) <= {found["_id"] for found in rows.find()}
    finally:
        made.stop()


def test_it_listens_only_once_the_config_servers_answer_and_stops_when_told(
    mongod: Path, tmp_path: Path
) -> None:
    made = LocalCluster(mongod, tmp_path, auth=False)
    config_port, made.router = free_ports(2)
    made.ports = {"cfg": [config_port]}
    with (tmp_path / "out").open("w") as out:
        router = subprocess.Popen(
            [sys.executable, "-m", "tests.support.router_standin", "--configdb", f"cfg/127.0.0.1:{config_port}",
             "--port", str(made.router), "--nounixsocket", "--pidfilepath", str(tmp_path / "pid")],
            cwd=REPOSITORY, stdout=out,
        )  # fmt: skip
    try:
        until(
            lambda: "Waiting for the config servers" in (tmp_path / "out").read_text(), "the router to start"
        )
        assert not listens(made.router)
        made.start_mongod("cfg", config_port)
        made.await_port(config_port)
        made.initiate("cfg", [config_port])
        until(lambda: listens(made.router), "the router to listen")
        assert (tmp_path / "pid").read_text().strip() == str(router.pid)
        router.send_signal(signal.SIGTERM)
        assert router.wait(timeout=10) == 0
        assert not (tmp_path / "pid").exists()
    finally:
        router.kill()
        router.wait()
        made.stop()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Makes a CA and a member's certificate for 127.0.0.1; returns the CA's file and the member's, key included."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(common_name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "flaskbook"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "members"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )

    def signed(subject: str, key: Any, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=named("ca"),
            subject_name=named(subject),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=datetime.now(UTC) - timedelta(days=1),
            not_valid_after=datetime.now(UTC) + timedelta(days=1),
        ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
            builder = builder.add_extension(address, critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    ca_key, member_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    ca_file, member_file = folder / "ca.pem", folder / "member.pem"
    ca_file.write_bytes(signed("ca", ca_key, ca=True).public_bytes(pem))
    member_file.write_bytes(
        signed("member", member_key, ca=False).public_bytes(pem)
        + member_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    member_file.chmod(0o600)
    return ca_file, member_file


def test_it_speaks_tls_to_clients_and_x509_to_the_cluster(mongod: Path, tmp_path: Path) -> None:
    ca, member = certificate(tmp_path)
    config_port, router_port = free_ports(2)
    (tmp_path / "data").mkdir()
    tls = f"net:\n  tls: {{mode: requireTLS, certificateKeyFile: {member}, CAFile: {ca}}}\n"
    auth = "security:\n  clusterAuthMode: x509\n"
    (tmp_path / "mongod.conf").write_text(
        f"storage: {{dbPath: {tmp_path / 'data'}}}\nreplication: {{replSetName: cfg}}\n"
        f"sharding: {{clusterRole: configsvr}}\nsystemLog: {{destination: file, path: {tmp_path / 'mongod.log'}}}\n"
        f"{tls}  port: {config_port}\n  unixDomainSocket: {{enabled: false}}\n{auth}"
    )
    (tmp_path / "mongos.conf").write_text(
        f"sharding: {{configDB: 'cfg/127.0.0.1:{config_port}'}}\n{tls}  port: {router_port}\n"
        f"  unixDomainSocket: {{enabled: false}}\n{auth}"
        f"systemLog: {{destination: file, path: {tmp_path / 'mongos.log'}}}\n"
    )
    made = LocalCluster(mongod, tmp_path, auth=False)
    encrypted: dict[str, Any] = {"tls": True, "tlsCAFile": str(ca), "tlsCertificateKeyFile": str(member)}
    try:
        made.processes[config_port] = subprocess.Popen(
            [str(mongod), "--config", str(tmp_path / "mongod.conf")], stdout=subprocess.DEVNULL
        )
        made.await_port(config_port)
        with pymongo.MongoClient(
            "127.0.0.1", config_port, directConnection=True, authMechanism="MONGODB-X509", **encrypted
        ) as system:
            members = [{"_id": 0, "host": f"127.0.0.1:{config_port}"}]
            system.admin.command("replSetInitiate", {"_id": "cfg", "configsvr": True, "members": members})
            until(lambda: system.admin.command("hello")["isWritablePrimary"], "a primary")
            system.admin.command("createUser", "root", pwd="root-password", roles=["root"])
        made.processes[router_port] = subprocess.Popen(
            [sys.executable, "-m", "tests.support.router_standin", "--config", str(tmp_path / "mongos.conf")],
            cwd=REPOSITORY,
        )
        made.await_port(router_port)
        with pymongo.MongoClient(
            "127.0.0.1", router_port, username="root", password="root-password", **encrypted
        ) as client:
            assert client.admin.command("listShards")["shards"] == []
        with (
            pymongo.MongoClient("127.0.0.1", router_port, serverSelectionTimeoutMS=1000) as plain,
            pytest.raises(ServerSelectionTimeoutError),
        ):
            plain.admin.command("ping")
    finally:
        made.stop()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("net:\n  port: 27017\n", "configdb"),
        ("sharding:\n  configDB: cfg/a:1\nstorage:\n  dbPath: data\n", "Unrecognized option: storage.dbPath"),
        ("sharding:\n  configDB: a:1,b:2\n", "replica set connection string"),
        ("sharding: [", "Error parsing YAML config file"),
    ],
)
def test_a_configuration_that_mongos_would_refuse_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "mongos.conf").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.router_standin", "--config", str(tmp_path / "mongos.conf")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret-key")
    (tmp_path / "key").chmod(0o644)
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.router_standin", "--configdb", "cfg/127.0.0.1:1",
         "--keyFile", str(tmp_path / "key")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 14
    assert "too open" in result.stderr
    assert "secret-key" not in result.stderr
