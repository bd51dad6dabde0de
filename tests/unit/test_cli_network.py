"""The network folder, its configuration files, ports and flags."""

from __future__ import annotations

import socket
import tomllib

import pytest

from lichen.cli import keys, profile
from lichen.cli import options as cli_options
from lichen.cli.network import command, create, folder, plan, ports, state
from lichen.cli.network.processes import ProcessId
from lichen.errors import CorruptionError, NotFoundError, UserError
from lichen.gateway.config import load_gateway_config
from lichen.identity.sealing import WrongPasswordError
from lichen.ledger.types import network_id
from lichen.node.config import load_node_config


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    root = tmp_path_factory.mktemp("network") / ".lichen"
    return create.create(root, nodes=2, port=18080, faults=create.parse_faults("slow=1"))


@pytest.fixture(autouse=True)
def no_user_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("LICHEN_PROFILE", raising=False)
    monkeypatch.delenv("LICHEN_PASSWORD", raising=False)
    yield
    cli_options.use(cli_options.Options())


def test_each_process_finds_its_configuration(network):
    genesis = folder.read_genesis(network.genesis)
    for name in network.nodes():
        config = load_node_config(str(network.home(name)))
        assert config.network == network_id(genesis).hex()
        assert config.endpoint == f"http://{config.listen}"
        assert config.ledger == network.url("ledger")
    assert load_node_config(str(network.home("node-1"))).fault is None
    assert load_node_config(str(network.home("node-2"))).fault == "slow"
    assert load_gateway_config(str(network.home("gateway"))).listen == "127.0.0.1:18080"


def test_everybody_who_sends_transactions_has_money_from_the_start(network):
    genesis = folder.read_genesis(network.genesis)
    funded = {account.address: account.balance for account in genesis.accounts}
    entries = {entry.name: entry for entry in keys.vault(profile.Profile(keys=network.keys)).list()}
    assert entries.pop("ledger").address == genesis.sequencer.address
    assert set(entries) == {"developer", "gateway", "node-1", "node-2"}
    for entry in entries.values():
        assert funded[entry.address] > genesis.params.stake_min


def test_secrets_are_for_their_owner_only(network):
    for path in (network.password, network.root / "profile.toml", network.keys / "gateway.json"):
        assert path.stat().st_mode & 0o077 == 0
    assert network.root.stat().st_mode & 0o077 == 0


def test_the_password_file_opens_the_keys_and_another_password_does_not(network, tmp_path):
    found = profile.Profile(keys=network.keys, password_file=network.password, account="developer")
    assert keys.signer(found).address == keys.address(found)
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password\n")
    with pytest.raises(WrongPasswordError) as caught:
        keys.signer(profile.Profile(keys=network.keys, password_file=wrong, account="developer"))
    assert caught.value.exit_code == 1
    assert caught.value.hint


def test_a_key_that_is_not_there_says_how_to_make_it(network):
    found = profile.Profile(keys=network.keys, password_file=network.password, account="nobody")
    with pytest.raises(NotFoundError) as caught:
        keys.signer(found)
    assert caught.value.hint == "make one: lichen account new nobody"


def test_the_nearest_network_folder_is_found_from_below(network, monkeypatch):
    below = network.root.parent / "some" / "project"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    found = profile.current()
    assert found.gateway == "http://localhost:18080"
    assert found.keys == network.keys
    assert found.genesis == network.genesis


def test_a_named_profile_wins_over_the_folder(network, monkeypatch, tmp_path):
    monkeypatch.chdir(network.root.parent)
    file = tmp_path / "c.toml"
    file.write_text('[profiles.far]\ngateway = "https://far.example"\nkeys = "k"\n')
    cli_options.use(cli_options.Options(config=file, profile="far"))
    assert profile.current().gateway == "https://far.example"
    assert profile.current().keys == tmp_path / "k"


def test_an_unknown_profile_names_the_nearest(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[profiles.far]\ngateway = "https://far.example"\n')
    cli_options.use(cli_options.Options(config=file, profile="fra"))
    with pytest.raises(NotFoundError) as caught:
        profile.current()
    assert caught.value.hint == "did you mean 'far'?"


def test_an_unknown_key_of_the_configuration_names_file_and_line(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[profiles.far]\ngatway = "https://far.example"\n')
    cli_options.use(cli_options.Options(config=file, profile="far"))
    with pytest.raises(UserError, match=r"c.toml:2: profiles.far.gatway: unknown key") as caught:
        profile.current()
    assert "'gateway'" in caught.value.hint


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    root = tmp_path / "precious"
    root.mkdir()
    (root / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match="is not a network folder"):
        create.create(root, nodes=1, port=18081, faults=create.Faults())
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (root / "thesis.tex").read_text() == "..."


def test_a_taken_port_is_named_together_with_the_flag(network):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ports.PortTakenError, match=f"port {port} is taken") as caught:
            ports.require_free("127.0.0.1", port, who="the gateway", remedy="use --port")
    assert caught.value.hint == "use --port"


def test_chosen_ports_are_different_and_outside_of_the_range_of_outgoing_connections():
    found = ports.choose_free(20)
    assert len(set(found)) == 20
    assert all(ports.FIRST <= port <= ports.LAST for port in found)


def test_the_ledger_starts_first_and_the_gateway_last(network):
    names = [[service.name for service in stage] for stage in plan.stages(network)]
    assert names == [["ledger"], ["node-1", "node-2"], ["gateway"]]


def test_validators_name_each_other_and_nodes_follow_different_ones(tmp_path):
    made = create.create(tmp_path / "n", nodes=3, port=18082, faults=create.Faults(), validators=2)
    assert made.ledgers() == ["ledger", "ledger-2"]
    configs = [made.config(name) for name in made.ledgers()]
    for own, other in (configs, configs[::-1]):
        (peer,) = own["cometbft"]["peers"]
        assert peer.endswith("@" + other["cometbft"]["p2p"])
    genesis = folder.read_genesis(made.genesis)
    assert (len(genesis.validators), genesis.sequencer) == (2, None)
    urls = [made.url(name) for name in made.ledgers()]
    assert [made.config(name)["ledger"] for name in made.nodes()] == [*urls, urls[0]]
    assert [service.name for service in plan.stages(made)[0]] == made.ledgers()
    with pytest.raises(UserError, match="--validators 2"):
        command.open_folder(made.root, None, None, "", 3)
    command.open_folder(made.root, None, None, "", 2)


@pytest.mark.parametrize("text", ["sloth=1", "slow=x", "slow=-1"])
def test_an_unknown_fault_names_the_known_ones(text):
    with pytest.raises(UserError) as caught:
        create.parse_faults(text)
    assert "slow, lazy, liar" in caught.value.hint


def test_more_faults_than_nodes_are_refused():
    with pytest.raises(UserError, match="3 faults for 2 nodes"):
        create.parse_faults("slow=2,lazy").of_nodes(["node-1", "node-2"])


def test_what_is_written_as_toml_reads_back(tmp_path):
    values = {
        "text": 'quotes " and \\ and\nlines and ü',
        "number": 2**40,
        "yes": True,
        "items": ["a", "b"],
        "table": {"en.example.org": 'a"b', "inner": "x"},
    }
    folder.write_toml(tmp_path / "x.toml", {**values, "left_out": None})
    assert tomllib.loads((tmp_path / "x.toml").read_text()) == values


@pytest.mark.parametrize("listen", ["", "localhost", "127.0.0.1:x", ":80", "127.0.0.1:99999"])
def test_a_wrong_listen_address_names_the_file(tmp_path, listen):
    with pytest.raises(CorruptionError, match=r"config.toml: listen"):
        folder.listen_of({"listen": listen}, tmp_path / "config.toml")


def test_the_lock_has_one_holder_at_a_time(tmp_path):
    first, second = state.RunLock(tmp_path / "lock"), state.RunLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    assert state.is_running(tmp_path / "lock")
    first.release()
    assert not state.is_running(tmp_path / "lock")
    assert second.acquire()
    second.release()


def test_a_state_file_that_a_crash_cut_off_counts_as_none(tmp_path):
    path = tmp_path / "state.json"
    running = state.Running(ProcessId("supervisor", 1, "then"), (), {"gateway": "http://x"})
    state.write(path, running)
    assert state.read(path) == running
    path.write_bytes(path.read_bytes()[:-20])
    assert state.read(path) is None
