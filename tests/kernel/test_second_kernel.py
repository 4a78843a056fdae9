"""A second Jupyter kernel: of another notebook, with the same model at the same time, and after a restart."""

import os
import time
from contextlib import ExitStack

import pytest
from kernel.kernels import PATIENCE, Kernel
from kernel.test_interrupt import LONG, SLOW_PACKING

from nbllm.runtime import packed_file

ASK = "%%chat --new --max-tokens 24 -t 1 --seed 5\nTell me of the sea."
SESSION = "__import__('nbllm.jupyter.session').jupyter.session.running()"


def prepare(kernel, model, folder):
    code = f"import os\nos.environ['NBLLM_CACHE'] = {str(folder)!r}\n%load_ext nbllm\n%config NbLLM.model = "
    assert kernel.run(code + repr(str(model))).reply["status"] == "ok"


def suffixes(folder):
    return sorted(path.suffix for path in folder.iterdir())


def restart(kernel, now):
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=PATIENCE)


def test_two_notebooks_at_once_lay_out_one_file_and_write_what_one_writes_alone(kernel, default_model, tmp_path):
    alone = kernel.run(ASK).text
    with ExitStack() as stack:
        both = [stack.enter_context(Kernel()) for _ in range(2)]
        for each in both:
            prepare(each, default_model, tmp_path)
        for _ in range(2):  # the first time they also load it
            cells = [each.start(ASK) for each in both]
            assert [cell.finish().text for cell in cells] == [alone, alone]
        (file,) = tmp_path.iterdir()
        assert [each.value(f"str({SESSION}.model.engine.weights.path)") for each in both] == [str(file)] * 2


@pytest.mark.parametrize("now", [False, True], ids=["asked to end", "killed"])
def test_restarted_while_it_writes_it_answers_again(fresh_kernel, default_model, tmp_path, now):
    prepare(fresh_kernel, default_model, tmp_path)
    alone = fresh_kernel.run(ASK).text
    fresh_kernel.start(LONG).until(lambda cell: "writing" in cell.states)
    restart(fresh_kernel, now)
    prepare(fresh_kernel, default_model, tmp_path)
    assert fresh_kernel.run(ASK).text == alone
    assert suffixes(tmp_path) == [".packed"]


@pytest.mark.parametrize(("now", "left"), [(False, []), (True, [".part"])], ids=["asked to end", "killed"])
def test_restarted_while_it_lays_out_weights_it_does_so_again(
    fresh_kernel, default_model, tiny_model, tmp_path, now, left
):
    fresh_kernel.run(SLOW_PACKING.format(folder=str(tmp_path)))
    fresh_kernel.start(ASK).until(lambda cell: "laying out weights: 1%" in str(cell.updates))
    restart(fresh_kernel, now)
    assert suffixes(tmp_path) == left  # of one that was killed nobody could take it away
    prepare(fresh_kernel, default_model, tmp_path)
    assert fresh_kernel.run(ASK).made["generated_tokens"] == 24
    for part in tmp_path.glob("*.part"):
        os.utime(part, (time.time() - 2 * packed_file.YOUNG,) * 2)
    assert fresh_kernel.run(f"%chat model {tiny_model}").reply["status"] == "ok"  # whose weights are laid out, too
    assert suffixes(tmp_path) == [".packed", ".packed"]
