"""The compute kernels: `nbllm._kernels.VARIANT.KERNEL`, one compiled module for each instruction set and kernel.

`nbllm._kernels.python.KERNEL` is the same kernel uncompiled. Built from `kernels_src/`; which one runs is not decided
here.
"""
