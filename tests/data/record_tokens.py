"""Records the vocabularies in vocabularies/, and in tokens.json.xz what llama.cpp makes of varied strings with them.

    python tests/data/record_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf llama.cpp/models

Run once, with llama-cpp-python 0.3.36 and nbllm installed; the tests read only what it wrote. The second argument is a
folder with llama.cpp's ggml-vocab-NAME.gguf, .inp and .out, as llama-cpp-python's source distribution has it. Only
those that may be shipped are read; what cutting the others need is recorded with the vocabulary of GPT-2 in their
place.
"""

import json
import lzma
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

SHIPPED = ("gpt-2", "falcon", "gpt-neox", "phi-3", "qwen2", "bert-bge")
TWINS = {"mpt": "gpt-neox", "qwen35": "qwen2"}  # the same vocabulary but for how it cuts
CUTS = ("refact", "llama-bpe", "dbrx", "deepseek-llm", "deepseek-coder", "deepseek-v3")  # recorded with GPT-2's
DEFAULT_MODEL, OTHERS = 2000, 500  # strings


def main(model, folder):
    import llama_cpp
    import vocabularies
    from check_tokens import vectors, with_pre
    from varied import strings

    from nbllm.formats.open import open_model

    def record(path, count):
        llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        return [llama.tokenize(text.encode(), add_bos=False, special=True) for text in texts[:count]]

    texts, given = strings(DEFAULT_MODEL), {}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(folder) / f"ggml-vocab-{name}.gguf" for name in (*SHIPPED, *TWINS)}
        for name in SHIPPED:
            with open_model(paths[name]) as file:
                (HERE / "vocabularies" / f"{name}.json.xz").write_bytes(vocabularies.pack(file.metadata))
        copies = {f"gpt-2 as {pre}": with_pre(paths["gpt-2"], pre, scratch) for pre in CUTS}
        ids = {name: record(path, OTHERS) for name, path in (paths | copies).items()}
        ids["SmolLM2"] = record(model, DEFAULT_MODEL)
        given = {name: vectors(path) for name, path in paths.items()}
    told = {
        "by": f"llama-cpp-python {llama_cpp.__version__}, add_bos=False, special=True",
        "strings": texts,
        "ids": ids,
        "vectors": given,
    }
    raw = json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode()
    (HERE / "tokens.json.xz").write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(*sys.argv[1:])
