"""Binding, on this machine's loopback."""

import socket
from dataclasses import replace

import pytest

from millrace.master.kernel import sockets
from millrace.master.kernel.addresses import own_addresses
from millrace.master.kernel.sockets import BindRefused, Sockets, bind_all, buffer_warning
from millrace.relay.config.model import AdminConfig, Config, HttpConfig, MediaConfig

ANY_PORT = Config(http=HttpConfig(port=0), media=MediaConfig(port=0), admin=AdminConfig(port=0))


@pytest.fixture
def bound(request: pytest.FixtureRequest):
    made = bind_all(ANY_PORT, 3)
    yield made
    close(made)


def close(sockets: Sockets) -> None:
    for _, group in sockets.named():
        for member in group.members:
            member.close()


def test_each_slot_has_a_socket_on_every_address(bound: Sockets) -> None:
    for groups, addresses in ((bound.http, 2), (bound.admin, 1), (bound.media[:2], 2)):
        assert len(groups) == addresses
        assert len({group.port for group in groups}) == 1, "one port on all addresses"
        for group in groups:
            assert [member.getsockname()[:2] for member in group.members] == [(group.address, group.port)] * 3
    groups = (*bound.http, *bound.admin, *bound.media, *bound.tcp)
    assert [group for _, group in bound.named()] == list(groups)


def test_listeners_take_connections_before_any_worker_does(bound: Sockets) -> None:
    for group in (*bound.http, *bound.admin):
        for _ in range(16):
            socket.create_connection((group.address, group.port), timeout=1).close()


def test_ipv6_sockets_take_no_ipv4(bound: Sockets) -> None:
    for group in (*bound.http, *bound.media):
        if ":" in group.address:
            options = {member.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for member in group.members}
            assert options == {1}


def test_sockets_do_not_block(bound: Sockets) -> None:
    assert {member.getblocking() for _, group in bound.named() for member in group.members} == {False}


@pytest.mark.parametrize("section", ["http", "media", "admin"])
def test_second_server_is_told_which_port_is_taken(section: str, bound: Sockets) -> None:
    port = getattr(bound, section)[0].port
    taken = {
        "http": Config(http=HttpConfig(port=port), media=MediaConfig(port=0), admin=AdminConfig(port=0)),
        "media": Config(http=HttpConfig(port=0), media=MediaConfig(port=port), admin=AdminConfig(port=0)),
        "admin": Config(http=HttpConfig(port=0), media=MediaConfig(port=0), admin=AdminConfig(port=port)),
    }[section]
    with pytest.raises(BindRefused, match=rf"{section}\.port: 127\.0\.0\.1 port {port} is taken by another program"):
        bind_all(taken, 1)


def test_clients_without_udp_connect_to_the_number_of_the_media_port_on_each_address(bound: Sockets) -> None:
    assert [(group.address, group.port) for group in bound.tcp] == [
        (group.address, bound.media[0].port) for group in bound.media[:2]
    ]
    for group in bound.tcp:
        assert len(group.members) == 1, "all slots share it"
        socket.create_connection((group.address, group.port), timeout=1).close()


def test_a_taken_tcp_port_is_an_error_only_where_tcp_has_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = replace(ANY_PORT, media=MediaConfig(port=0, tcp="on", tcp_port=port))
        with pytest.raises(
            BindRefused, match=rf"media\.tcp_port: 127\.0\.0\.1 port {port} is taken by another program"
        ):
            bind_all(config, 1)
        made = bind_all(replace(config, media=replace(config.media, tcp="auto")), 1)
    assert made.tcp == ()
    assert [line for line in made.warnings if line.startswith("media.tcp: clients in networks without UDP")]
    close(made)
    off = bind_all(replace(config, media=replace(config.media, tcp="off")), 1)
    assert (off.tcp, off.warnings) == ((), ())
    close(off)


def test_refused_bind_leaves_nothing_bound(bound: Sockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    config = Config(http=HttpConfig(port=free), media=MediaConfig(port=bound.media[0].port), admin=AdminConfig(port=0))
    with pytest.raises(BindRefused):
        bind_all(config, 2)
    socket.create_server(("127.0.0.1", free)).close()


def test_port_is_free_again_after_a_restart(bound: Sockets) -> None:
    port = bound.http[0].port
    with socket.create_connection(("127.0.0.1", port)):
        close(bound)
    again = bind_all(Config(http=HttpConfig(port=port), media=MediaConfig(port=0), admin=AdminConfig(port=0)), 1)
    close(again)


def test_foreign_address_is_refused_with_the_key() -> None:
    config = Config(http=HttpConfig(bind=("192.0.2.77",), port=0), media=MediaConfig(port=0), admin=AdminConfig(port=0))
    with pytest.raises(BindRefused, match=r"http\.bind: 192\.0\.2\.77 .* does not have the address"):
        bind_all(config, 1)


def test_wildcard_media_binds_each_address_of_the_box() -> None:
    media = MediaConfig(bind=("0.0.0.0", "::"), port=0)
    made = bind_all(Config(http=HttpConfig(port=0), media=media, admin=AdminConfig(port=0)), 1)
    assert [group.address for group in made.media] == own_addresses(4) + own_addresses(6)
    close(made)


def test_clamped_buffer_is_told_with_the_sysctl_that_allows_it() -> None:
    assert buffer_warning("receive_buffer_bytes", 4096, 4096) == []
    (warning,) = buffer_warning("receive_buffer_bytes", 4_194_304, 212_992)
    assert "sysctl -w net.core.rmem_max=4194304" in warning
    (warning,) = buffer_warning("send_buffer_bytes", 4_194_304, 212_992)
    assert "sysctl -w net.core.wmem_max=4194304" in warning


def test_media_buffers_are_as_configured_or_warned_about(bound: Sockets) -> None:
    granted = bound.media[0].members[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    warned = any("receive_buffer_bytes" in warning for warning in bound.warnings)
    assert warned == (granted < ANY_PORT.media.receive_buffer_bytes)


def activated(*, shared: bool) -> tuple[socket.socket, Config]:
    """One that the service manager has bound, and a configuration with its port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    return listener, replace(ANY_PORT, http=HttpConfig(bind=("127.0.0.1",), port=port))


def test_socket_of_the_service_manager_is_the_first_of_its_group() -> None:
    listener, config = activated(shared=True)
    made = bind_all(config, 2, [listener])
    assert made.http[0].members[0] is listener
    assert made.http[0].members[1].getsockname() == listener.getsockname()
    assert not listener.getblocking()
    close(made)


def test_socket_of_the_service_manager_has_to_be_shared_when_several_workers_serve() -> None:
    listener, config = activated(shared=False)
    close(bind_all(config, 1, [listener]))
    listener, config = activated(shared=False)
    with pytest.raises(BindRefused, match="ReusePort=yes"):
        bind_all(config, 2, [listener])


def test_socket_of_the_service_manager_that_nobody_wants_is_closed_and_named() -> None:
    listener, _ = activated(shared=True)
    port = listener.getsockname()[1]
    made = bind_all(ANY_PORT, 1, [listener])
    assert listener.fileno() == -1
    assert any(str(port) in warning for warning in made.warnings)
    close(made)


def test_of_more_addresses_than_the_engine_takes_the_likeliest_of_each_family_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {4: [f"10.20.{number}.1" for number in range(100)], 6: [f"2001:db8::{number:x}" for number in range(1, 4)]}
    monkeypatch.setattr(sockets, "own_addresses", lambda version: own[version])
    kept, left_out = sockets.media_addresses(["0.0.0.0", "::", "10.20.99.1"])
    assert len(kept) == sockets.MOST_ADDRESSES
    assert set(own[6]) < set(kept)
    assert kept[:60] == tuple(own[4][:60])
    assert "10.20.99.1" in kept
    assert set(kept).isdisjoint(left_out)
    assert len(left_out) == 103 - 64
    line = sockets.too_many(kept, left_out)
    assert line.startswith("media.bind: this machine has 103 addresses, of which 64 are used; name those")
    own[4] = own[4][:9]
    assert sockets.media_addresses(["0.0.0.0", "::"]) == ((*own[4], *own[6]), ())


def test_more_named_addresses_than_the_engine_takes_are_refused() -> None:
    with pytest.raises(sockets.BindRefused, match=r"media\.bind: found 65 addresses, expected 64 at most"):
        sockets.media_addresses([f"10.0.0.{number}" for number in range(65)])
