"""Other people's IPFS software beside a Lichen network: how it is found, configured and stopped.

Kubo runs in a repository of its own: no bootstrap, nothing listens but loopback, no configuration
from the network, ephemeral ports; it is stopped by its pid.
"""

import contextlib
import datetime as dt
import hashlib
import http.client
import ipaddress
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lichen.cli.network.create import Faults, create
from lichen.cli.network.ports import choose_free
from lichen.runtime.npm import NpmError, node_path, run_npm
from lichen.testing.network import LocalNetwork

KUBO_MODULE = "github.com/ipfs/kubo/cmd/ipfs@latest"
KUBO_HINT = f"go install {KUBO_MODULE}, a release from dist.ipfs.tech, or name the program in KUBO"
NGINX_HINT = "install nginx from your distribution's packages"
START_S_MAX = 60
COMMAND_S_MAX = 180
TOOLS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lichen", "tools")


def find_kubo():
    """Return the path of Kubo's `ipfs`; skip the test where there is none (.ci/run installs it)."""
    if program := os.environ.get("KUBO"):
        return program
    places = [os.environ.get("PATH", ""), str(TOOLS), os.path.expanduser("~/go/bin")]
    if go := shutil.which("go"):
        asked = [go, "env", "GOBIN", "GOPATH"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")
        places += [said[0], f"{said[1]}/bin"]
    found = shutil.which("ipfs", path=os.pathsep.join(filter(None, places)))
    if found is None:
        pytest.skip(f"Kubo is not installed: {KUBO_HINT}")
    return found


def find_nginx():
    """Return the path of nginx; skip the test where there is none."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        pytest.skip(f"nginx is not installed: {NGINX_HINT}")
    return found


class Kubo:
    """A Kubo that asks one delegated router and nobody else."""

    def __init__(self, home, router, publishers=()):
        self.publishers = list(publishers)  # to whom it gives its IPNS records
        self.home = Path(home)
        self.binary = find_kubo()
        self.router = router
        self.process = None

    def __enter__(self):
        self.ipfs("init", "--empty-repo")
        config = json.loads((self.home / "config").read_text())
        config["AutoConf"] = {"Enabled": False}
        config["Bootstrap"] = []
        config["Addresses"] |= {
            "Swarm": [],
            "API": "/ip4/127.0.0.1/tcp/0",
            "Gateway": "/ip4/127.0.0.1/tcp/0",
        }
        config["AutoTLS"] = {"Enabled": False}
        config["DNS"] = {"Resolvers": {}}
        config["Discovery"] = {"MDNS": {"Enabled": False}}
        config["HTTPRetrieval"] = {"TLSInsecureSkipVerify": True}
        config["Ipns"] = {"DelegatedPublishers": self.publishers}
        config["Provide"] = {"Enabled": False}
        config["Routing"] = {"Type": "delegated", "DelegatedRouters": [self.router]}
        config["Swarm"] |= {"DisableNatPortMap": True}
        (self.home / "config").write_text(json.dumps(config))
        self.log = (self.home / "daemon.log").open("wb")
        self.process = subprocess.Popen(
            [self.binary, "daemon"], env=self._environment(), stdout=self.log, stderr=self.log
        )
        self._wait_until_ready()
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.log.close()

    @property
    def gateway(self):
        """The URL of its HTTP gateway."""
        return (self.home / "gateway").read_text().strip()

    def ipfs(self, *arguments, stdin=None):
        """Run one command and return what it printed; raise with what it said when it fails."""
        done = subprocess.run(
            [self.binary, *arguments],
            env=self._environment(),
            input=stdin,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"ipfs {arguments}: {done.stderr.decode()[-2000:]}")
        return done.stdout

    def _environment(self):
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "IPFS_PATH": str(self.home),
            "IPFS_TELEMETRY": "off",
            "GOLOG_LOG_LEVEL": "error",
        }

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_S_MAX
        while not (self.home / "gateway").exists():
            said = (self.home / "daemon.log").read_text(errors="replace")
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Kubo did not start: {said[-3000:]}")
            time.sleep(0.05)


def make_certificate(folder):
    """Write a self-signed certificate for localhost and 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = (folder / "certificate.pem", folder / "key.pem")
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


NGINX_MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""
DOCS_TLS = Path(__file__).parents[2] / "docs" / "tls.md"


def documented_nginx(port, upstream_port, certificate, key):
    """Return the server of docs/tls.md, with this machine's ports and files."""
    block = DOCS_TLS.read_text().split("```nginx\n")[1].split("```")[0]
    for written, meant in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server 127.0.0.1:8080": f"server 127.0.0.1:{upstream_port}",
        "/etc/ssl/gateway.example/fullchain.pem": str(certificate),
        "/etc/ssl/gateway.example/key.pem": str(key),
    }.items():
        assert block.count(written) == 1, written
        block = block.replace(written, meant)
    return block


@contextlib.contextmanager
def tls_front(folder, upstream_port):
    """Run nginx as documented in front of a port of this machine; yield its own port."""
    binary = find_nginx()
    folder.mkdir()
    port = choose_free(1)[0]
    server = documented_nginx(port, upstream_port, *make_certificate(folder))
    config = folder / "nginx.conf"
    config.write_text(NGINX_MAIN.format(folder=folder, server=server))
    process = subprocess.Popen([binary, "-c", config, "-p", folder, "-e", folder / "error.log"])
    try:
        wait_until_open(port, process, folder / "error.log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait_until_open(port, process, log):
    """Wait until a process listens; raise with its log when it ends or does not."""
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return


HELIA = Path(__file__).parent / "helia"
INSTALL_S_MAX = 240
HELIA_ID = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"  # a peer id, of nobody


def install_helia():
    """Install Helia from its lock, once a machine; skip the test where the registry is missing."""
    locked = [
        (HELIA / name).read_bytes() for name in ("package.json", "package-lock.json", ".npmrc")
    ]
    home = TOOLS.parent / f"helia-{hashlib.sha256(b''.join(locked)).hexdigest()[:16]}"
    if not home.exists():
        TOOLS.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="helia-new-", dir=TOOLS.parent))
        shutil.copytree(HELIA, fresh, dirs_exist_ok=True)
        try:
            run_npm(("ci",), str(fresh), timeout_s=INSTALL_S_MAX)
            fresh.rename(home)
        except NpmError as error:
            if not error.is_network:
                raise
            pytest.skip(f"Helia is not installed, for want of the npm registry: {error.output}")
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return home


class Helia:
    """A Helia that asks one delegated router; it serves its own blocks at a port."""

    def __init__(self, home, folder, router, port):
        """Take the installation, a folder for what it says, and what it is to do."""
        self._log = folder / "helia.log"
        self._script = folder / "peer.mjs"  # its packages are found from where it stands
        shutil.copy(HELIA / "peer.mjs", self._script)
        (folder / "node_modules").symlink_to(home / "node_modules")
        self._command = [node_path(), self._script, router, str(port), HELIA_ID]

    def __enter__(self):
        self._errors = self._log.open("w+")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._answer() == {"serving": True}
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(30)
        self._process.stdout.close()
        self._errors.close()

    def ask(self, what, **arguments):
        """Give one command; return its answer, in which `error` says what went wrong."""
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        ready, _, _ = select.select([self._process.stdout], [], [], COMMAND_S_MAX)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise AssertionError(f"Helia said nothing: {self._log.read_text()[-3000:]}")
        return json.loads(line)


def make_network(root, port, **gateway):
    """Make the folder of a network of one node, its gateway configured; return the network."""
    network = LocalNetwork(root, nodes=1, port=port)
    create(network.folder.root, nodes=1, port=port, faults=Faults())
    config = network.folder.home("gateway") / "config.toml"
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in gateway.items()]
    config.write_text("".join(lines) + config.read_text())
    return network


def add_content(network, mebibytes, entries):
    """Add a file and a folder of many small ones; return CIDs, and hashes to compare with."""
    data = os.urandom(mebibytes << 20)
    (network.root / "big").write_bytes(data)
    folder = network.root / "many"
    folder.mkdir()
    tree = hashlib.sha256()
    for number in range(entries):
        content = b"the content of entry %d" % number
        (folder / f"entry-{number:05}").write_bytes(content)
        tree.update(b"entry-%05d %b\n" % (number, hashlib.sha256(content).hexdigest().encode()))
    big = network.lichen("storage", "add", "big")["cid"]
    many = network.lichen("storage", "add", "many")["cid"]
    return big, hashlib.sha256(data).hexdigest(), many, tree.hexdigest()


def spoil(network, length):
    """Change one byte of the only stored file of this length, behind the gateway's back."""
    flat = network.folder.home("gateway") / "content" / "flat"
    (file,) = [path for path in flat.rglob("*") if path.is_file() and path.stat().st_size == length]
    with file.open("r+b") as stored:
        stored.seek(length // 2)
        byte = stored.read(1)
        stored.seek(length // 2)
        stored.write(bytes([byte[0] ^ 1]))


def get(network, path, **headers):
    """Ask the gateway itself; return status and body, or None for a body that broke off."""
    connection = network.connect(timeout_s=60)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.IncompleteRead:
        return response.status, None
    finally:
        connection.close()


def fetched_from(network):
    """Return how many blocks the gateway had from each kind of source."""
    lines = get(network, "/metrics")[1].decode().splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines)
    return {
        kind: int(counts[f"lichen_gateway_fetched_from_{kind}_total"])
        for kind in ("nodes", "providers", "kubo")
    } | {"wrong": int(counts["lichen_gateway_wrong_blocks_total"])}
