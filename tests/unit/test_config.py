"""A node and its places give the text of its mongod.conf: valid YAML, each section only where it applies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provision.core.errors import ProvisionError
from provision.mongodb.config import Layout, render
from provision.mongodb.topology import Node, NodeOptions, Role

TEMPLATE = (Path(__file__).resolve().parents[2] / "mongod.conf.j2").read_text(encoding="utf-8")
LAYOUT = Layout(data="/data/one", log="/log/one.log", bind_ip="127.0.0.1")
ALONE = Node("mongod", Role.STANDALONE, "127.0.0.1", 27017)
MEMBER = replace(ALONE, role=Role.MEMBER, replica_set="rs0", options=NodeOptions(0.25, 64))


def rendered(node: Node, layout: Layout = LAYOUT, template: str = TEMPLATE) -> dict[str, Any]:
    found = yaml.safe_load(render(node, layout, template))
    assert isinstance(found, dict)
    return found


def test_a_standalone_has_storage_log_and_net_and_nothing_else() -> None:
    assert rendered(ALONE) == {
        "storage": {"dbPath": "/data/one", "wiredTiger": {"engineConfig": {"cacheSizeGB": 0.25}}},
        "systemLog": {
            "destination": "file",
            "path": "/log/one.log",
            "logAppend": True,
            "timeStampFormat": "iso8601-utc",
        },
        "net": {"port": 27017, "bindIp": "127.0.0.1", "unixDomainSocket": {"enabled": False}},
    }


def test_a_member_has_its_sets_name_and_oplog() -> None:
    assert rendered(MEMBER)["replication"] == {"replSetName": "rs0", "oplogSizeMB": 64}


def test_a_node_without_a_log_file_logs_to_standard_output() -> None:
    assert rendered(ALONE, replace(LAYOUT, log=None))["systemLog"] == {"timeStampFormat": "iso8601-utc"}


def test_a_key_file_means_authorization() -> None:
    assert rendered(MEMBER, replace(LAYOUT, key_file="/keys/one"))["security"] == {
        "authorization": "enabled",
        "keyFile": "/keys/one",
    }


def test_a_router_has_config_servers_and_no_storage() -> None:
    router = Node("router-1", Role.ROUTER, "127.0.0.1", 27100, config_db="config/127.0.0.1:27120")
    found = rendered(router, replace(LAYOUT, key_file="/keys/one"))
    assert found["sharding"] == {"configDB": "config/127.0.0.1:27120"}
    assert found["security"] == {"keyFile": "/keys/one"}
    assert "storage" not in found
    assert "replication" not in found


@pytest.mark.parametrize(("role", "cluster_role"), [(Role.SHARD, "shardsvr"), (Role.CONFIG, "configsvr")])
def test_members_of_a_cluster_say_what_they_are(role: Role, cluster_role: str) -> None:
    assert rendered(replace(MEMBER, role=role))["sharding"] == {"clusterRole": cluster_role}


def test_server_parameters_keep_their_types_and_order() -> None:
    options = NodeOptions(set_parameter={"b": True, "a": 3, "d": "yes: no", "c": 0.5})
    text = render(replace(ALONE, options=options), LAYOUT, TEMPLATE)
    assert list(yaml.safe_load(text)["setParameter"].items()) == [
        ("a", 3),
        ("b", True),
        ("c", 0.5),
        ("d", "yes: no"),
    ]


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_path_survives(path: str) -> None:
    assert rendered(ALONE, replace(LAYOUT, data=path))["storage"]["dbPath"] == path


def test_rendering_is_pure() -> None:
    assert render(MEMBER, LAYOUT, TEMPLATE) == render(MEMBER, LAYOUT, TEMPLATE)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("net: {{ node.nickname }}", "nickname"),
        ("net: {{ nodes }}", "nodes"),
        ("a: 1\n{% if %}", "line 2"),
        ("net: [", "no valid YAML"),
        ("just words", "no sections"),
    ],
)
def test_a_template_that_will_not_do_is_one_error(template: str, words: str) -> None:
    with pytest.raises(ProvisionError) as error:
        render(ALONE, LAYOUT, template)
    assert words in error.value.cause
    assert "mongod.conf.j2" in error.value.text()
