"""Root CIDs equal those of Kubo's `ipfs add` with the same import profile.

The directory of 100,000 entries takes Kubo 40 s and is in `large_unixfs_kubo.py`.
"""

import pytest
from tests.conformance.kubo_importer import Kubo
from tests.conformance.unixfs_cases import CASES, LARGE_CASES, answer, file, write

from lichen.cli.project.pack import Pack
from lichen.content.profile import PROFILES


@pytest.fixture(scope="module", params=sorted(PROFILES))
def kubo(request, tmp_path_factory):
    kubo = Kubo(tmp_path_factory.mktemp("kubo"), request.param)
    kubo.profile = PROFILES[request.param]
    return kubo


def test_root_cids_equal_kubos(kubo, tmp_path):
    subfolders = [file(f"d/{'s' * 80}{i:04}/f", 1) for i in range(3000)]
    cases = CASES | {
        "file of 300 MB": LARGE_CASES["file of 300 MB"],
        "subdirectories count towards the threshold": subfolders,
    }
    ours = {name: answer(entries, kubo.profile)["cid"] for name, entries in cases.items()}
    assert ours == kubo.roots_of(cases, tmp_path)


def test_a_folder_as_storage_add_takes_it_has_kubos_cid(kubo, tmp_path):
    entries = CASES["nested"] + CASES["symlink"] + CASES["odd names"] + [file("d/.hidden", 3)]
    top = write(entries, tmp_path)
    with Pack(kubo.profile, with_hidden=True, as_is=True) as pack:
        assert str(pack.add(tmp_path / "d").cid) == kubo.root_of(top)
