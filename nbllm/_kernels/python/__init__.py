"""The kernels uncompiled: slow, and what the compiled ones are compared with.

Kernel files import each other, and the vocabulary `lanes`, as top-level modules, for that is how Pythran finds them; so
those names are given to them here.
"""

import sys
from importlib import import_module

# each imports only those before it
for _name in ("lanes", "elementwise", "tiles", "matmul", "attention", "paged", "experts", "products"):
    sys.modules[_name] = import_module(f"{__name__}.{_name}")
