"""Extreme weights through every stage: no numbers, infinities, subnormals and zeros end in a result or in one line."""

import architectures
import pytest
from fuzz.seeds import ARCHITECTURES, seeds

from nbllm.errors import ModelFileError
from nbllm.formats.open import open_model
from nbllm.runtime.engine import Engine
from nbllm.runtime.options import Sampling

PATTERNS = {
    "nan": b"\xff\xff", "infinity": b"\x00\x7c", "float infinity": b"\x00\x00\x80\x7f", "subnormal": b"\x01\x00",
    "zero": b"\0\0"
}  # fmt: skip
TENSORS = 6  # of each model, from its first to its last
FIRST = Sampling(temperature=0, max_tokens=1)


@pytest.fixture(params=["gguf3", "F16", "BF16", "Q4_1", "Q8_0", *ARCHITECTURES, "gemma2"])
def file(request, tmp_path):
    """Path of a model, and its bytes."""
    path = tmp_path / "m.gguf"
    if request.param == "gemma2":  # which caps scores and logits
        architectures.write(architectures.MODELS["gemma2"], path)
        return path, path.read_bytes()
    return path, seeds()[request.param][0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_extreme_weights_end_in_a_result_or_in_one_line(file, pattern, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", "off")
    path, raw = file
    path.write_bytes(raw)
    with open_model(path) as model:
        tensors = [tensor for name, tensor in model.tensors.items() if "rope" not in name]
    for tensor in tensors[:: max(1, len(tensors) // TENSORS)]:
        changed = bytearray(raw)
        changed[tensor.offset : tensor.offset + tensor.nbytes] = (PATTERNS[pattern] * tensor.nbytes)[: tensor.nbytes]
        path.write_bytes(changed)
        with open_model(path) as model:
            engine = Engine(model, context=64, threads=2)
        for count in (1, 3, 17):
            ids = list(range(count))
            told = [_told(lambda: engine.logits(ids)), _told(lambda: list(engine.generate(ids, FIRST)))]
            assert told[0] or not told[1], (tensor.name, count)  # of the former, all logits count, not only the last
            if pattern == "nan" and "embd" not in tensor.name and "exps" not in tensor.name:
                assert told == [True, True], (tensor.name, count)


def _told(use):
    """Whether it is refused, in one line."""
    try:
        use()
    except ModelFileError as error:
        assert "a value that is not a number" in str(error) and "\n" not in str(error)
        return True
    return False
