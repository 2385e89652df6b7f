"""Settings that all tests share."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # `make test` runs two processes; chapters too have one thread each

# Property tests run on loaded machines: no deadline for an example, and the same examples in every run.
settings.register_profile("companion", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("companion")


@pytest.fixture(autouse=True, scope="module")
def doubles() -> Iterator[None]:
    """Tests compute in float64, as chapters do; the library's own examples run without, as in a reader's session."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
