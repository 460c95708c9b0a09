"""Where a server listens, and what it is called elsewhere."""

import pytest

from fl_common.errors import NetworkError
from fl_server.access import home_files
from fl_server.processes.listening import Addresses, known_as


@pytest.mark.parametrize(
    ("changes", "words"),
    {
        "a URL": ({"host": "http://0.0.0.0"}, "--host takes a name or an IP address"),
        "a port in the host": ({"host": "127.0.0.1:9092"}, "--host takes a name or an IP address"),
        "half an IPv6 address": ({"control_host": "fe80::zz"}, "--control-host takes a name or an IP address"),
        "no host": ({"host": ""}, "--host takes"),
        "port 0": ({"fleet_port": 0}, "--fleet-port takes a number from 1 to 65535"),
        "a port that is too large": ({"control_port": 65536}, "--control-port takes a number from 1 to 65535"),
        "a negative port": ({"appio_port": -1}, "--appio-port takes a number from 1 to 65535"),
        "a port twice": ({"fleet_port": 9093}, "need a port each"),
    }.values(),
)
def test_what_a_server_cannot_listen_on_is_said(changes, words):
    good = {"host": "::1", "fleet_port": 9092, "control_host": "[::1]", "control_port": 9093, "appio_port": 9091}
    assert Addresses.of(**good) == Addresses("[::1]:9092", "[::1]:9093", "127.0.0.1:9091")
    with pytest.raises(NetworkError, match=words):
        Addresses.of(**good | changes)


@pytest.mark.parametrize("host", ["0.0.0.0:9092", "[::]:9092"])
def test_a_server_that_listens_on_all_addresses_names_one_that_clients_can_use(host):
    own = home_files.own_names(host.rpartition(":")[0])
    assert known_as(host, own) in {f"{each}:9092" for each in own} | {f"[{each}]:9092" for each in own}
    assert known_as(host, ["fl.example", *own]) == "fl.example:9092"
    assert known_as("[::1]:9092", ["fl.example"]) == "[::1]:9092"
