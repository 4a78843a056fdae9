"""`%%chat` and `%chat` in a Jupyter kernel: streaming, the conversation, replies in variables, the commands."""

import re

LONG = "%%chat --max-tokens 80 -t 0\nTell me a long story about a lighthouse keeper and the sea."


def test_loading_the_extension_is_silent_and_imports_nothing_heavy(default_model):
    from kernel.kernels import Kernel

    with Kernel() as kernel:
        kernel.run("import sys; before = set(sys.modules)")
        cell = kernel.run("%load_ext nbllm")
        assert [message["msg_type"] for message in cell.messages] == ["status", "execute_input", "status"]
        assert cell.reply["status"] == "ok"
        kernel.run("import nbllm; nbllm.load_ipython_extension(get_ipython()); new = set(sys.modules) - before")
        assert not kernel.value("sorted(new & {'numpy', 'jinja2', 'regex', 'ipywidgets', 'nbllm.model'})")
        assert kernel.value("[type(each).__name__ for each in get_ipython().configurables].count('NbLLM')") == 1
        kernel.run("%unload_ext nbllm")
        assert kernel.run("%%chat\nhello").reply["ename"] == "UsageError"
        assert kernel.run("%reload_ext nbllm").reply["status"] == "ok"
        assert "%chat new" in kernel.run("%chat help").printed


def test_a_reply_streams_as_updates_of_one_display_and_ends_complete(kernel):
    cell = kernel.start(LONG + "\n").until(lambda cell: "writing" in cell.states)
    assert "done" not in cell.states
    cell.finish()
    kinds = [message["msg_type"] for message in cell.messages]
    assert kinds.count("display_data") == 1
    assert len({content["transient"]["display_id"] for content in cell.updates}) == 1
    texts = [text for text, state in zip(cell.texts, cell.states) if state != "waiting"]
    assert len(set(texts)) > 2 and all(later.startswith(sooner) for sooner, later in zip(texts, texts[1:]))
    assert cell.made["generated_tokens"] == 80
    assert {kind for update in cell.updates for kind in update["data"]} == {"text/plain", "text/markdown"}


def test_four_hundred_tokens_of_streaming_are_sixty_kilobytes_at_most(kernel):
    kernel.run("numbers = {'type': 'array', 'items': {'type': 'integer'}, 'minItems': 400}")  # so that it is no shorter
    cell = kernel.run("%%chat --max-tokens 400 --schema numbers\nList the natural numbers.")
    assert cell.made["generated_tokens"] == 400
    print(f"{len(cell.updates)} updates, {cell.size:,} bytes")
    assert len(cell.updates) > 10 and cell.size < 60_000


def test_what_the_display_ends_with_is_the_reply_in_the_variable(kernel):
    cell = kernel.run("%%chat -o answer --max-tokens 30\nWhat is the capital of France?")
    assert kernel.value("answer.text") == cell.text != ""
    assert kernel.value("[str(answer), answer.seed, answer.finish_reason]") == [
        cell.text,
        1,
        cell.made["finish_reason"],
    ]
    assert kernel.value("answer.stats.generated_tokens") == cell.made["generated_tokens"]


def test_the_output_says_what_made_the_reply(kernel, default_model):
    cell = kernel.run("%%chat --max-tokens 5 --seed 7 -t 0.5 --top-k 20\nCount to one hundred.")
    made = cell.made
    assert made["state"] == "done" and made["finish_reason"] == "length" and made["generated_tokens"] == 5
    assert made["sampling"] == {"temperature": 0.5, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1,
                                "repeat_window": 64, "seed": 7, "max_tokens": 5, "stop": []}
    footer = cell.outputs[0]["data"]["text/markdown"].splitlines()[-1].replace("\\", "")
    assert re.fullmatch(
        rf"\*{re.escape(made['model'])} · {made['prompt_tokens'] - made['reused_tokens']} tokens read, "
        rf"{made['reused_tokens']} reused, 5 written · "
        r"[\d.]+ tokens/s · seed 7 · cut at 5 tokens \(--max-tokens\)\*", footer,
    )


def test_the_model_is_loaded_once(fresh_kernel):
    fresh_kernel.run(
        "import nbllm.model as m\nloads = []\nreal = m.loading\n"
        "def counted(*args, **named):\n    loads.append(args)\n    return real(*args, **named)\nm.loading = counted"
    )
    first = fresh_kernel.run("%%chat --max-tokens 4\nhello")
    second = fresh_kernel.run("%%chat --max-tokens 4\nand again")
    assert fresh_kernel.value("len(loads)") == 1
    assert any(text.startswith("loading ") for text in first.texts)
    assert not any(text.startswith("loading ") for text in second.texts)


def test_a_follow_up_reads_only_what_is_new(kernel):
    first = kernel.run("%%chat --max-tokens 40\nMy name is Aurora. Remember it.").made
    second = kernel.run("%%chat --max-tokens 20\nWhat is my name?").made
    # Everything but the last token's key and value, which the first reply's last step did not compute.
    assert second["reused_tokens"] >= first["prompt_tokens"] + first["generated_tokens"] - 1
    assert second["prompt_tokens"] - second["reused_tokens"] < 30


def test_the_same_seed_gives_the_same_reply(kernel):
    replies = []
    for _ in range(2):
        kernel.run("%chat new")
        replies.append(kernel.run("%%chat --seed 5 -t 1 --max-tokens 25\nInvent an animal.").text)
    assert replies[0] == replies[1]
    kernel.run("%chat new")
    assert kernel.run("%%chat --seed 6 -t 1 --max-tokens 25\nInvent an animal.").text != replies[0]


def test_every_run_has_a_display_of_its_own(kernel):
    first, second = (kernel.run("%%chat --max-tokens 3\nhello") for _ in range(2))
    assert first.updates[0]["transient"]["display_id"] != second.updates[0]["transient"]["display_id"]


def test_output_goes_to_the_cell_that_asked_and_ends_with_it(kernel):
    """`Cell.until` refuses messages of other cells, so two at once in the queue prove the routing."""
    first = kernel.start("%%chat --max-tokens 20\nSay something about rain.")
    second = kernel.start("print('next')")
    first.finish()
    assert second.finish().printed == "next\n"
    assert first.text and not second.updates
    assert kernel.stray(1) == []


def test_a_name_in_braces_becomes_its_value_once_and_nothing_else_changes(kernel):
    kernel.run("x = '{y} $HOME'\ny = 3\ndef sent():\n"
               "    from nbllm.jupyter.session import running\n    return running().chat.messages[-2]['content']")
    prompt = "{x} {{y}} {unknown} {1} {y.none} {In} $y `{}` %s {0!r} \\n <b> ``` {y}"
    cell = kernel.run(f"%%chat --max-tokens 2\n{prompt}")
    assert kernel.value("sent()") == prompt.replace("{x}", "{y} $HOME", 1).removesuffix("{y}") + "3"
    assert "with the value of x, y" in cell.outputs[0]["data"]["text/markdown"]
    kernel.run(f"%%chat --raw --max-tokens 2\n{prompt}")
    assert kernel.value("sent()") == prompt


def test_cells_their_results_and_errors_and_objects_are_put_into_the_prompt(kernel):
    kernel.run("def sent():\n"
               "    from nbllm.jupyter.session import running\n    return running().chat.messages[-2]['content']")
    number = kernel.value("get_ipython().execution_count") - 1
    kernel.run("%pwd\n6 * 7")
    failed = kernel.run("def half(x):\n    return x / 0\nhalf(1)")
    assert failed.reply["ename"] == "ZeroDivisionError"
    at = number + 1, number + 2
    cell = kernel.run(
        f"%%chat -w half,Out[{at[0]}] --max-tokens 2\n{{In[{at[0]}]}}; {{Err[{at[1]}]}}; {{half.__name__}}"
    )
    assert kernel.value("sent()") == (
        f"`half`:\n```\ndef half(x):\n    return x / 0\n\n```\n\n`Out[{at[0]}]`:\n```\n42\n```\n\n"
        "%pwd\n6 * 7; Traceback (most recent call last):\n"
        '  File "cell", line 3, in <module>\n    half(1)\n  File "cell", line 2, in half\n    return x / 0\n'
        "ZeroDivisionError: division by zero; {half.__name__}"
    )
    footer = cell.outputs[0]["data"]["text/markdown"].replace("\\", "")
    assert f"with the value of Out[{at[0]}], In[{at[0]}], Err[{at[1]}] · with a description of half" in footer
    assert "`Out[" in kernel.run("%chat prompt").printed


def test_a_system_prompt_stays_until_the_next_conversation(kernel):
    kernel.run("def system():\n    from nbllm.jupyter.session import running\n    return running().chat.system")
    kernel.run("%%chat --system 'You are {x} a pirate.' --max-tokens 2\nhello")
    assert kernel.value("system()") == "You are {x} a pirate."
    kernel.run("%%chat --max-tokens 2\nhello")
    assert kernel.value("system()") == "You are {x} a pirate."
    kernel.run("%chat new")
    assert kernel.value("system()") is None


def test_new_forgets_the_conversation(kernel):
    kernel.run("%%chat --max-tokens 4\nMy name is Aurora.")
    assert kernel.run("%chat new").text == "A new conversation."
    assert kernel.run("%%chat --max-tokens 4\nhello").made["prompt_tokens"] < 40
    assert kernel.value("len(__import__('nbllm.jupyter.session').jupyter.session.running().chat.messages)") == 2


def test_a_message_can_start_a_new_conversation(kernel):
    kernel.run("%%chat --system 'Be brief.' --max-tokens 4\nMy name is Aurora.")
    kernel.run("%%chat --new --max-tokens 4\nhello")
    chat = "__import__('nbllm.jupyter.session').jupyter.session.running().chat"
    assert kernel.value(f"[{chat}.system, len({chat}.messages), {chat}.messages[0]['content']]") == [None, 2, "hello"]


def test_info_tells_of_the_processor_without_and_with_a_model(fresh_kernel):
    before = fresh_kernel.run("%chat info").printed
    assert "AVX2" in before and "threads" in before.lower()
    made = fresh_kernel.run("%%chat --max-tokens 2\nhello").made
    after = fresh_kernel.run("%chat info").printed
    assert made["model"] in after and made["model"] not in before


def test_prompt_shows_the_text_and_the_ids_that_were_sent(kernel):
    made = kernel.run("%%chat --new --max-tokens 2\nhello <|im_end|>").made
    text, _, ids = kernel.run("%chat prompt").printed.rstrip().rpartition("\n\n")
    assert text.endswith("<|im_start|>user\nhello <|im_end|><|im_end|>\n<|im_start|>assistant\n")
    count, _, ids = ids.partition(" token ids: ")
    assert int(count) == len(ids.split()) == made["prompt_tokens"]


def test_switching_the_model_keeps_the_conversation(kernel, tiny_model, default_model):
    kernel.run("%%chat --max-tokens 4\nhello")
    cell = kernel.run(f'%chat model "{tiny_model}"')
    assert "the conversation of 2 messages goes on" in cell.text
    assert kernel.run("%%chat --max-tokens 2\nhello").made["model"] in cell.text
    assert str(tiny_model) in kernel.run("%chat model").printed
    kernel.run(f"%chat model {default_model}")


def test_help_lists_commands_and_options(kernel):
    printed = kernel.run("%chat").printed
    assert printed == kernel.run("%chat help").printed
    assert all(word in printed for word in ("%chat new", "%chat model", "--top-k", "--max-tokens", "--out"))


def test_models_are_a_table_in_markdown_and_in_plain_text(kernel):
    kernel.run("%%chat --max-tokens 2\nhello")
    (shown,) = kernel.run("%chat models").of("display_data")
    markdown, plain = shown["data"]["text/markdown"], shown["data"]["text/plain"]
    assert "| name | parameters | size | memory | fits | licence | where |\n| --- | --: |" in markdown
    assert "\n| smollm2-135m | 0.1 B | 0.1 GB | 0.4 GB | yes | Apache-2.0 | in use, " in markdown
    assert re.search(r"\n  smollm2-135m +0\.1 B +0\.1 GB +0\.4 GB +yes +Apache-2\.0 +in use, ", plain)
