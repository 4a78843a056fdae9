"""Compares every tokenizer with llama.cpp: the vectors beside the vocabularies, and many varied strings.

    python tests/check_tokens.py FOLDER [--strings 100000] [--pre NAME ...]

Not part of the suite: it takes an hour or so, llama-cpp-python, and a folder of vocabularies that this project may not
ship, for instance models/ of llama-cpp-python's source distribution (ggml-vocab-NAME.gguf, .inp, .out). With `--pre`,
each vocabulary is tried once more under each of these pre-tokenizers. Ends with status 1 if anything differs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import llama_cpp

from nbllm.errors import ModelFileError
from nbllm.formats.open import open_model
from nbllm.tokenizers import load_tokenizer

sys.path.insert(0, str(Path(__file__).parent / "data"))
sys.path.insert(0, str(Path(__file__).parent))
from tiny_gguf import gguf_bytes  # noqa: E402
from varied import strings  # noqa: E402

SEPARATOR = b"\n__ggml_vocab_test__\n"


def vectors(path):
    """(text, ids) of the files beside a vocabulary."""
    texts, ids = path.with_name(path.name + ".inp"), path.with_name(path.name + ".out")
    if not texts.exists():
        return []
    lines = ids.read_text("utf-8").split("\n")
    cases = zip(texts.read_bytes().split(SEPARATOR), lines)
    return [(text.decode(), list(map(int, line.split()))) for text, line in cases]


def differences(path, metadata, count):
    """How many strings there were, and those of them whose ids differ."""
    ours = load_tokenizer(metadata)
    literals = [ours.tokens[id] for id in sorted(ours.special_ids | ours.user_ids)][:200]
    different = [(text, ids, ours.encode(text)) for text, ids in vectors(path) if ours.encode(text) != ids]
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    texts = strings(count, specials=literals)
    for special in (True, False):
        for text in texts[special::2]:
            wanted = theirs.tokenize(text.encode(), add_bos=False, special=special)
            found = ours.encode(text, special)
            if wanted != found:
                different.append((text, wanted, found))
    return len(texts) + len(vectors(path)), different


def with_pre(path, pre, folder):
    """A copy of a vocabulary under another pre-tokenizer."""
    with open_model(path) as file:
        metadata = file.metadata | {"tokenizer.ggml.pre": pre}
    copy = Path(folder) / f"{path.stem}-{pre}.gguf"
    copy.write_bytes(gguf_bytes(metadata, {}))
    return copy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--pre", nargs="+", default=[])
    given, wrong = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(given.folder.glob("*.gguf"))
        for path in paths + [with_pre(path, pre, folder) for path in paths for pre in given.pre]:
            start = time.perf_counter()
            with open_model(path) as file:
                metadata = file.metadata
            try:
                count, different = differences(path, metadata, given.strings)
            except ModelFileError as error:
                print(f"{path.stem:32} {error}")
                continue
            wrong += len(different)
            seconds = time.perf_counter() - start
            print(f"{path.stem:32} {count} strings, {len(different)} differ, {seconds:.0f} s", flush=True)
            for text, wanted, found in different[:3]:
                print(f"    {text!r}\n        llama.cpp {wanted}\n        nbllm     {found}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
