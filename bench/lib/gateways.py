"""The other IPFS gateways, on loopback, without a network, each with a repository of its own.

Content comes to both as a CAR. Kubo imports it by its command; rainbow, which has none, finds its
blocks in the files in which it keeps them (flatfs, its default: one file a block, named by the
multihash in base32, in folders named by the third to last up to the last but one letter of it).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.machine import free_port, wait_for
from lichen.content import CarReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lib.machine import Processes

INSTALL_S_MAX = 900
COMMAND_S_MAX = 300
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lichen", "tools")
_SHARDING = "/repo/flatfs/shard/v1/next-to-last/3\n"


class Tool(NamedTuple):
    """A Go program: what its file is called, what names another place of it, what installs it."""

    name: str
    variable: str
    module: str

    def how_to_get(self) -> str:
        return f"go install {self.module}, or name the program in {self.variable}"


KUBO = Tool("ipfs", "KUBO", "github.com/ipfs/kubo/cmd/ipfs@latest")
RAINBOW = Tool("rainbow", "RAINBOW", "github.com/ipfs/rainbow@latest")


def find(tool: Tool) -> str | None:
    """Return the program, from where it may be or by `go install`; None when it cannot be had."""
    known = [os.environ.get(tool.variable), shutil.which(tool.name), str(CACHE / tool.name)]
    go = shutil.which("go")
    if go is not None:
        asked = subprocess.run(
            [go, "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True
        )
        gobin, gopath = ([*asked.stdout.split("\n"), ""])[:2]
        known += [f"{gobin}/{tool.name}" if gobin else None, f"{gopath}/bin/{tool.name}"]
    for program in filter(None, known):
        if os.access(program, os.X_OK):
            return program
    return None if go is None else _install(go, tool)


def _install(go: str, tool: Tool) -> str | None:
    print(f"... installing {tool.name} ({tool.module})", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [go, "install", tool.module],
        env={**os.environ, "GOBIN": str(CACHE)},
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    if done.returncode == 0:
        return str(CACHE / tool.name)
    print(f"    not to be had: {done.stderr.strip().splitlines()[-1][:200]}")
    return None


class Gateway(NamedTuple):
    """A running gateway: where it listens, and its process."""

    port: int
    pid: int


def kubo(processes: Processes, program: str, cars: Iterable[Path]) -> Gateway:
    """Start Kubo, offline, with the CARs imported."""
    home = processes.folder / "kubo"
    environment = {"IPFS_PATH": str(home), "IPFS_TELEMETRY": "off"}

    def run(*arguments: str) -> None:
        subprocess.run(
            [program, *arguments], env={**os.environ, **environment},
            capture_output=True, timeout=COMMAND_S_MAX, check=True,
        )  # fmt: skip

    run("init", "--empty-repo")
    port = free_port()
    config = json.loads((home / "config").read_text())
    config["Addresses"] |= {
        "Swarm": [],
        "API": f"/ip4/127.0.0.1/tcp/{free_port()}",
        "Gateway": f"/ip4/127.0.0.1/tcp/{port}",
    }
    config |= {"Bootstrap": [], "AutoConf": {"Enabled": False}, "DNS": {"Resolvers": {}}}
    config |= {"Routing": {"Type": "none"}, "Ipns": {"DelegatedPublishers": []}}
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Gateway"]["NoFetch"] = True
    (home / "config").write_text(json.dumps(config))
    run("dag", "import", "--pin-roots=false", *map(str, cars))
    pid = processes.start(program, "daemon", "--offline", environment=environment)
    wait_for(port)
    return Gateway(port, pid)


def rainbow(processes: Processes, program: str, cars: Iterable[Path]) -> Gateway:
    """Start rainbow with the CARs' blocks in its store; its peers and routers are nobody."""
    home = processes.folder / "rainbow"
    _write_blocks(home / "flatfs", cars)
    port = free_port()
    environment = {
        "RAINBOW_DATADIR": str(home),
        "RAINBOW_GATEWAY_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "RAINBOW_CTL_LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
        "RAINBOW_LIBP2P_LISTEN_ADDRS": f"/ip4/127.0.0.1/tcp/{free_port()}",
        "RAINBOW_GATEWAY_DOMAINS": "127.0.0.1",
        "RAINBOW_GC_INTERVAL": "0",
        "RAINBOW_GC_THRESHOLD": "0",  # else it begins by deleting what it has where disks are full
        "RAINBOW_AUTOCONF": "false",
        "RAINBOW_BOOTSTRAP": "",
        "RAINBOW_HTTP_ROUTERS": "",
        "RAINBOW_DHT_ROUTING": "off",
        "RAINBOW_DNSLINK_RESOLVERS": "",
    }
    pid = processes.start(program, environment=environment)
    wait_for(port)
    return Gateway(port, pid)


def _write_blocks(folder: Path, cars: Iterable[Path]) -> None:
    folder.mkdir(parents=True)
    (folder / "SHARDING").write_text(_SHARDING)
    for car in cars:
        with car.open("rb") as stream:
            for cid, block in CarReader(stream):
                name = base64.b32encode(cid.multihash).decode().rstrip("=")
                shard = folder / name[-4:-1]
                shard.mkdir(exist_ok=True)
                (shard / f"{name}.data").write_bytes(block)
