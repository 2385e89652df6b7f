"""Settings that all tests share."""

from hypothesis import settings

# Property tests run on loaded machines: no deadline for an example, and the same examples in every run.
settings.register_profile("companion", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("companion")
