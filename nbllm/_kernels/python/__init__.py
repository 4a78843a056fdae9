"""The kernels uncompiled: slow, and what the compiled ones are compared with.

A kernel says `from lanes import ...`, for Pythran knows the vocabulary as a top-level module; so that name is given to it here.
"""

import sys

from nbllm._kernels.python import lanes

sys.modules["lanes"] = lanes
