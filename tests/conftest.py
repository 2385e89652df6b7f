"""Settings that all tests share."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # `make test` runs two processes; chapters too have one thread each

# Property tests run on loaded machines: no deadline for an example, and the same examples in every run.
settings.register_profile("companion", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("companion")
