"""The official suite of IPFS gateways against a network of this machine: `make conformance`.

    python tests/conformance/gateway_suite.py [--specs GROUP,...] [--only PATTERN] [--report FILE]

Finds `gateway-conformance` (GATEWAY_CONFORMANCE, PATH, Go's folder of binaries), or installs the
pinned version with Go; starts a network by `lichen up`; gives the gateway the suite's content,
records and DNSLinks; runs all groups, and ends with 0 only if every case ran and passed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.cli.network.folder import GATEWAY, write_config
from lichen.testing.network import LocalNetwork

if TYPE_CHECKING:
    import http.client

VERSION = "v0.13.2"
MODULE = "github.com/ipfs/gateway-conformance/cmd/gateway-conformance"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lichen", "tools", VERSION)
SUBDOMAIN_HOST = "example.com"
GROUPS = (
    "trustless-block-gateway", "trustless-car-gateway", "trustless-car-gateway-optional",
    "trustless-ipns-gateway", "path-unixfs-gateway", "path-ipns-gateway", "path-tar-gateway",
    "path-dag-gateway", "path-raw-gateway", "path-range-gateway", "subdomain-ipfs-gateway",
    "subdomain-ipns-gateway", "dnslink-gateway", "redirects-file", "proxy-gateway",
)  # fmt: skip
INSTALL_S_MAX = 900
RUN_S_MAX = 900


def find_suite() -> str | None:
    """Return the suite's program, installed with Go where it is not here; None without a way."""
    name = "gateway-conformance"
    known = [os.environ.get("GATEWAY_CONFORMANCE"), shutil.which(name), str(CACHE / name)]
    go = shutil.which("go")
    if go is not None:
        path = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True)
        known.append(str(Path(path.stdout.strip(), "bin", name)))
    for program in filter(None, known):
        if os.access(program, os.X_OK):
            return program
    if go is None:
        print("gateway-conformance is not here, and neither is Go, which installs it:")
        print("install Go 1.25 or newer, and run this again")
        return None
    return _install(go)


def _install(go: str) -> str | None:
    print(f"installing gateway-conformance {VERSION} ...", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [go, "install", f"{MODULE}@{VERSION}"],
        env={**os.environ, "GOBIN": str(CACHE)},
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    if done.returncode == 0:
        return str(CACHE / "gateway-conformance")
    print(done.stderr[-1000:])
    print("gateway-conformance could not be installed; where its module cannot be reached, build")
    print("it elsewhere and name the program: GATEWAY_CONFORMANCE=/path make conformance")
    return None


def prepare(network: LocalNetwork, suite: str, fixtures: Path) -> None:
    """Give the gateway what the suite asks for."""
    command = [suite, "extract-fixtures", "--directory", str(fixtures), "--merged"]
    subprocess.run(command, capture_output=True, timeout=RUN_S_MAX, check=True)
    links = json.loads((fixtures / "dnslinks.json").read_bytes())["domains"]
    network.up()
    network.down()
    config = network.folder.config(GATEWAY)
    config |= {"hosts": ["localhost", SUBDOMAIN_HOST], "dnslinks": links}
    write_config(network.folder.home(GATEWAY), config)
    network.up()
    network.lichen("storage", "add", str(fixtures / "fixtures.car"))
    for record in sorted(fixtures.glob("*.ipns-record")):
        put_record(network, record.name.partition("_")[0].removesuffix(".ipns-record"), record)


def put_record(network: LocalNetwork, name: str, record: Path) -> None:
    """Offer a record; some of the suite's are broken on purpose, and have to be refused."""
    connection = network.connect()
    fields = {"content-type": "application/vnd.ipfs.ipns-record"}
    response: http.client.HTTPResponse
    connection.request("PUT", f"/routing/v1/ipns/{name}", record.read_bytes(), fields)
    response = connection.getresponse()
    response.read()
    print(f"record {record.name}: {response.status}")
    connection.close()


def run_suite(network: LocalNetwork, suite: str, specs: str, only: str, report: Path) -> int:
    """Run the groups; print what passed, failed and was skipped; return the exit status."""
    command = [
        suite, "test", "--gateway-url", f"http://127.0.0.1:{network.port}",
        "--subdomain-url", f"http://{SUBDOMAIN_HOST}:{network.port}",
        "--json", str(report), "--specs", specs, "--",
        "-timeout", "10m", "-count", "1", *(["-run", only] if only else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    cases = outcomes(report)
    count = collections.Counter(cases.values())
    for name in sorted(cases):
        if cases[name] != "pass":
            print(f"{cases[name].upper():5} {name}")
    if not cases or (done.returncode and not count["fail"]):
        print(done.stdout[-3000:], done.stderr[-3000:])
        return 1
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 0 if count["pass"] == len(cases) else 1


def outcomes(report: Path) -> dict[str, str]:
    """Return how each leaf case ended."""
    ended: dict[str, str] = {}
    for line in report.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("Test") and event.get("Action") in {"pass", "fail", "skip"}:
            ended[event["Test"]] = event["Action"]
    parents = {name.rpartition("/")[0] for name in ended}
    return {name: how for name, how in ended.items() if name not in parents}


def main() -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--specs", default=",".join(GROUPS), help="groups, all by default")
    parser.add_argument("--only", default="", help="a pattern of test names, as go test -run has")
    parser.add_argument("--report", type=Path, help="where to write the JSON report")
    parser.add_argument(
        "--if-available", action="store_true", help="end with 0 where the suite cannot be had"
    )
    parser.add_argument("--verbose", action="store_true", help="say what failed and why")
    options = parser.parse_args()
    suite = find_suite()
    if suite is None:
        print("NOT RUN: the official gateway suite")
        return 0 if options.if_available else 1
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lichen-conformance-") as name:
        root = Path(name)
        report = options.report or root / "report.json"
        network = LocalNetwork(root, nodes=1)
        try:
            prepare(network, suite, root / "fixtures")
            status = run_suite(network, suite, options.specs, options.only, report)
        finally:
            network.down()
        if options.verbose:
            tell_failures(report)
    print(f"{time.monotonic() - start:.0f} s")
    return status


def tell_failures(report: Path) -> None:
    """Print what the suite said of each failed case."""
    failed = {name for name, how in outcomes(report).items() if how == "fail"}
    for line in report.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("Action") == "output" and event.get("Test") in failed:
            sys.stdout.write(event["Output"])


if __name__ == "__main__":
    raise SystemExit(main())
