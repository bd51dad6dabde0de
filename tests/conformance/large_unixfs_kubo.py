"""The cases that take Kubo long: `make conformance-cids`."""

import pytest
from tests.conformance.kubo_importer import Kubo
from tests.conformance.unixfs_cases import LARGE_CASES, answer

from lichen.content.profile import PROFILES


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_large_root_cids_equal_kubos(profile, tmp_path):
    kubo = Kubo(tmp_path / "kubo", profile)
    ours = {name: answer(case, PROFILES[profile])["cid"] for name, case in LARGE_CASES.items()}
    assert ours == kubo.roots_of(LARGE_CASES, tmp_path)
