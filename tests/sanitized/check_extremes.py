"""Extreme weights through every kernel: no numbers, infinities, denormals and scales of zero end in a result or one line."""

import pytest
from fuzz.seeds import ARCHITECTURES, names, seeds

import nbllm
from nbllm.errors import ModelFileError
from nbllm.formats.open import open_model
from nbllm.runtime import ops

VARIANTS = [
    variant.name for variant in ops.VARIANTS if variant.name in ops.built() and all(map(ops.cpu_features().get, variant.needs))
]
PATTERNS = {
    "nan": b"\xff\xff", "infinity": b"\x00\x7c", "float infinity": b"\x00\x00\x80\x7f", "denormal": b"\x01\x00", "zero": b"\0\0"
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("seed", ["gguf3", "F16", "BF16", "Q4_1", "Q8_0", *ARCHITECTURES])
def test_extreme_weights(tmp_path, monkeypatch, seed, pattern, variant):
    monkeypatch.setenv("NBLLM_ISA", variant)
    monkeypatch.setattr(ops, "_chosen", None)
    monkeypatch.setenv("NBLLM_CACHE", "off")
    path = tmp_path / names(seed)[0]
    raw = bytearray(seeds()[seed][0])
    path.write_bytes(raw)
    with open_model(path) as file:
        tensors = [tensor for name, tensor in file.tensors.items() if "rope" not in name]
    for tensor in tensors[:: max(1, len(tensors) // 6)]:
        changed = raw.copy()
        changed[tensor.offset : tensor.offset + tensor.nbytes] = (pattern * tensor.nbytes)[: tensor.nbytes]
        path.write_bytes(changed)
        with nbllm.load(path, threads=2, progress=lambda done, total: None) as model:
            for count in (1, 3, 17):
                ids = list(range(count))
                for use in (lambda: list(model.generate(ids, temperature=0, max_tokens=2)), lambda: model.logits(ids)):
                    try:
                        use()
                    except ModelFileError as error:
                        assert "not a number" in str(error)
