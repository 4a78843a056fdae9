"""Turns a kernel written in Python over the `lanes` vocabulary into C++ text, by way of Pythran.

usage: translate.py KERNEL.py KERNEL.cpp

The text is the same for every instruction set: it includes `lanes.hpp`, and the build says by an include path whose.
Knows neither compilers nor instruction sets. The vocabulary is read from `lanes.py` and nowhere else: each public
function there is a function of Pythran's module `lanes`, and those named in `lanes.WRITES` write to their first
argument.
"""

import hashlib
import inspect
import pathlib
import re
import sys
import types

import pythran
from pythran import tables
from pythran.config import cfg
from pythran.conversion import ToNotEval
from pythran.errors import PythranSyntaxError
from pythran.intrinsic import FunctionIntr, ReadEffect, UpdateEffect
from pythran.spec import spec_parser

# Pythran includes one header a function; ours come in one.
OWN_INCLUDE = re.compile(r"#include <pythonic/(?:include/)?lanes/\w+\.hpp>\n")

# In Pythran's text, each function is declared in a struct of its name, which begins so for those imported from a file
# beside the kernel.
FUNCTION = re.compile(r"(?m)(?=^    struct \S+\n)")
IMPORTED = "    struct __pythran_imported__"
LARGE = IMPORTED + "products"  # of a file whose functions are too large to be compiled into their callers

NOT_KERNELS = {"__init__.py", "translate.py"}

# Pythran's inlining copies each array argument, at the price of two atomic operations; the C++ compiler's does not.
PASSES = [name for name in cfg.get("pythran", "optimizations").split() if not name.endswith(".Inlining")]


def vocabulary(lanes):
    """The public functions that the module `lanes` defines: name -> function."""
    return {
        name: value
        for name, value in vars(lanes).items()
        if inspect.isfunction(value) and value.__module__ == lanes.__name__ and not name.startswith("_")
    }


def not_at_compile_time(*_):
    """Stands for every `lanes` function while Pythran folds constants.

    Pythran evaluates calls whose arguments are constants. The NumPy meaning of `splat_f32(0.0)` is an array, and an
    array in place of a vector register does not compile.
    """
    raise ToNotEval


def register(lanes):
    """Add the module `lanes` to Pythran's tables, and hide its NumPy meaning from Pythran."""
    stand_in = types.ModuleType("lanes")
    functions = {}
    for name, function in vocabulary(lanes).items():
        parameters = list(inspect.signature(function).parameters)
        effects = [ReadEffect() for _ in parameters]
        if name in lanes.WRITES:
            effects[0] = UpdateEffect()
        functions[name] = FunctionIntr(args=parameters, argument_effects=effects, global_effects=name in lanes.WRITES)
        setattr(stand_in, name, not_at_compile_time)
    tables.MODULES["lanes"] = functions
    tables.save_path((), {"lanes": functions})
    tables.save_function({"lanes": functions}, ())
    sys.modules["lanes"] = stand_in


FUNCTOR = """
namespace functor {
struct NAME {
  using callable = void;
  template <class... T> INLINE auto operator()(T &&...a) const -> decltype(lanes::NAME(std::forward<T>(a)...)) {
    return lanes::NAME(std::forward<T>(a)...);
  }
  friend std::ostream &operator<<(std::ostream &os, NAME) { return os << "NAME"; }
};
}
"""
CALL = """
template <class F, class... T> INLINE auto call(F f, T &&...a) {
  return f.template operator()<types::by_val_t<T>...>(static_cast<types::by_val_t<T>>(a)...);
}
"""


def functors(names):
    """C++ text: the header of the vocabulary, and its functions as the objects that Pythran calls."""
    objects = (FUNCTOR.replace("NAME", name) for name in names)
    return "\n".join(
        ['#include "lanes.hpp"', "PYTHONIC_NS_BEGIN", "namespace lanes {", *objects, CALL, "}", "PYTHONIC_NS_END", ""]
    )


def inlined(text):
    """C++ text in which the functions that a kernel imports from files beside it are compiled into their callers, and
    the kernel's own, and those of `products.py`, are not.

    Left to itself, g++ takes the many small functions of a large kernel for too much to inline, and is ten times
    slower; and with all of it in one, it takes twice as long to compile.
    """
    first, *parts = FUNCTION.split(text)
    for i, part in enumerate(parts):
        apart = part.startswith(LARGE) or not part.startswith(IMPORTED)
        apart = apart and "argument_type0" in part  # constants are functions, too, but without arguments
        parts[i] = part.replace("\n      inline\n", f"\n      {'NOINLINE' if apart else 'INLINE'}\n")
    return "".join([first, *parts]).replace("pythonic::types::call(", "pythonic::lanes::call(")


def fingerprint(folder):
    """One hash of all kernel sources in a folder, so that a test can tell whether a build is of the present ones."""
    files = sorted(path for path in pathlib.Path(folder).glob("*.py") if path.name not in NOT_KERNELS)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def translate(kernel):
    """C++ text of an extension module, once `register` has been called.

    Parameters
    ----------
    kernel : pathlib.Path
        The kernel file; it may import from files beside it.

    Raises
    ------
    pythran.errors.PythranSyntaxError
        The file is outside of what Pythran understands.
    """
    source = kernel.read_text(encoding="utf-8")
    module, _ = pythran.generate_cxx(
        kernel.stem, source, spec_parser(source), optimizations=PASSES, module_dir=str(kernel.parent)
    )
    # The module's `__pythran__` holds a hash of this one file; the files beside it count too.
    text = str(module).replace(hashlib.sha256(source.encode("ascii", "ignore")).hexdigest(), fingerprint(kernel.parent))
    before, *after = OWN_INCLUDE.split(text)
    return before + (functors(tables.MODULES["lanes"]) + inlined("".join(after)) if after else "")


def main(kernel, out):
    sys.path.insert(0, str(pathlib.Path(__file__).parent))  # under PYTHONSAFEPATH it is not there already
    import lanes

    register(lanes)
    try:
        text = translate(pathlib.Path(kernel))
    except PythranSyntaxError as error:
        sys.exit(f"{kernel}: {error}")
    pathlib.Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
