"""One chain with the contracts' test harness, for all tests that need it."""

import pytest
from tests.conformance import evm as evms


@pytest.fixture(scope="session")
def evm(tmp_path_factory):
    tools = evms.install(tmp_path_factory.mktemp("contracts"))
    anvil = evms.find_anvil(tools)
    chain = evms.Evm(anvil, evms.compile_sources(tools), tmp_path_factory.mktemp("anvil"))
    yield chain
    chain.close()


@pytest.fixture(scope="session")
def harness(evm):
    return evm.deploy("Harness")
