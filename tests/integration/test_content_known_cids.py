"""Root CIDs that Kubo, the reference JavaScript importer and Lichen agree on: they stay as they are.

How the others are asked: `tests/conformance`, where the cases are, too.
"""

import pytest

from lichen.content.profile import PROFILES
from tests.conformance.unixfs_cases import CASES, LARGE_CASES, answer

KNOWN = {
    "unixfs-v0-2015": {
        "file of 0": "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "file of 1": "QmXC9WjuLo7EfydBdbWyvpGif62nrxbDCX2vcz9ZqLTQvV",
        "file of 1048575": "QmZDNkRZsh1HLdHEYA6CyZmbuzTfkLgMRmGJbnbxTZs74s",
        "file of 1048576": "QmcSYR2pNVHyGbCEaESJGvCQr2icf7EemyWYNGYdxAnDk4",
        "file of 1048577": "QmRBuKTs4W3NhP2NbfH2QAqYiN1dEntchaUXjMqZ62SM52",
        "deep": "QmQZCNYwtJ9PY6uXcanNxP953TU1wzUfB812gxsvjmwCJz",
        "odd names": "QmP5rgrRtNHo7UzNP8SikQRfHQe24oBwjaPkAkJic5Qcix",
        "symlink": "QmQuRQJpgmZbxM3DrMUzBmjiffZPFPMeDEBM4KPuce8v84",
        "empty directory": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        "links of 256 KiB": "QmcSaZvjLjb9VkYQqhntHd8q8H2rQd34nzPZbVdFNbH3hB",
        "links of 256 KiB and a byte": "QmfCnUE9ZALgFGWGEALRCxsDAeoCT1HzPZWCLqd5XRGY8T",
        "a block of 256 KiB": "QmRSvUCSLoDsFhywEzX421RfN275Fjf2vAgT7vDMUMEiAs",
        "a block of 256 KiB and a byte": "QmTsStebToNN63ugDtc2T8GASR6ynW3VizdLK1De799Ch6",
        "file of 300 MB": "QmYJTQB8yHvCfBZRm5R2CHN9y5fv7rk2zRGVHNJvcup6hm",
        "100,000 entries": "QmS48WDvgUfzq2GuxUx6UNsvbrgxHF4nY8fm31NSqAmnS6",
    },
    "unixfs-v1-2025": {
        "file of 0": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "file of 1": "bafkreigkgwdvr5wspzwpiutssn4xpj2i7wedshnwphhnu7ohx4pqaxxipe",
        "file of 1048575": "bafkreiecjghwdep6qg7zeortutia7jbyghq2anhngk7lzf4xmxj4jxjgty",
        "file of 1048576": "bafkreiaja4yo4nrwshkqqmipzg76pnaauvqz2hkkaemxajyu4nbar2scye",
        "file of 1048577": "bafybeigfa33rj5ds4bxxppzifu3v6vmv56674mhdq5jleaf44pxcr2l7t4",
        "deep": "bafybeieno727q2d67o26pqhavvl4mlkvjtuah6wrcgn2xl3z5vv6oibpiq",
        "odd names": "bafybeiha43vwmoh55fehkkwvlnkwxpe6lngeuzromfjku55jqiwnjzgw44",
        "symlink": "bafybeieckabvkyh7npwqcmd7g2v4junnfsbl4ybstxen7e6jwhde3z7gwy",
        "empty directory": "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        "links of 256 KiB": "bafybeihgrea53qigxzxbqujomj2g2eulsziuurvlpqnerkuwgz463efine",
        "links of 256 KiB and a byte": "bafybeibz52vbavgwx6e4ko2r3dlovcpr4no3khqpkjcepzyacrth4aqnsa",
        "a block of 256 KiB": "bafybeiho7p6diyut26obcs3vyzktmkonxrm7n6yx6y4tgo5qrxenopevfm",
        "a block of 256 KiB and a byte": "bafybeidkwecmizdl4iedcfiocs6bookkb4vwpo4xgr2smgvn24w7c6nrr4",
        "file of 300 MB": "bafybeicfbzebpb4ufp76tebljb6fj2lv3sz6ehfsnwrjakfsm6gmkbr6ma",
        "100,000 entries": "bafybeieqk2ljtzegrcvfov4ysfv2ibikeiqyd4msdq2tykmni3a7t4pthm",
    },
}


@pytest.mark.parametrize(("profile", "name"), [(p, n) for p, cids in KNOWN.items() for n in cids])
def test_root_cids_stay_what_all_importers_agreed_on(profile, name):
    entries = (CASES | LARGE_CASES)[name]
    assert answer(entries, PROFILES[profile])["cid"] == KNOWN[profile][name]
