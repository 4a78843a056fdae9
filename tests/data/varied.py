"""Varied strings to compare tokenizers with: code, scripts, runs of spaces, numbers, control characters,
special tokens.

Drawn from the tables below, from alice.txt, and from the sources of this repository as they are at the time.
"""

import itertools
import random
import unicodedata
from pathlib import Path

HERE = Path(__file__).parent

CODE = [
    "fn main() {\n    println!(\"Hello, world!\");\n}\n",
    "#include <stdio.h>\nint main(void)\n{\n\tprintf(\"%d\\n\", 0x7fff);\n\treturn 0;\n}\n",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name HAVING COUNT(*) > 1;",
    "for i in $(seq 1 10); do echo \"$i: ${arr[$i]}\" >> /tmp/out.log 2>&1; done",
    "<div class=\"a b\" id='c'><a href=\"https://example.org/?q=1&amp;r=2\">x &lt; y</a></div>",
    "{\"a\": [1, 2.5e-3, null, true], \"b\": {\"c\": \"\\u00e9\\n\"}}",
    "const f = async (x) => { await g(x?.y ?? z); return `${x}-${y}`; };",
    "\\begin{equation}\n  \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}\n\\end{equation}",
    "df = df[df['a'] > 3].groupby([\"b\"]).agg({'c': 'mean'})  # TODO: faster\n",
    "class A(B[C], metaclass=D):\n\t@property\n\tdef x(self) -> int | None: ...\n",
    "https://user@example.org:8080/a/b_c/d-e.html?x=%20y&z=1#frag",
    "C:\\Users\\me\\Documents\\file (1).txt",
    "git commit -m \"it's\" && ./configure --prefix=/usr/local -j8 || exit 1",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\n```python\nx = 1\n```\n",
]
CHINESE = [
    "为什么哪里都有“存在”而没有绝对的虚无？", "你好，世界！", "我爱北京的秋天。", "月亮绕地球一周需要多长时间？", "請用繁體中文回答。", "机器学习模型在笔记本电脑上运行。",
    "今天气温是25度，明天下雨。", "　全角空格　和，标点：（测试）", "龍騰虎躍", "Python很好用",
]  # fmt: skip
SCRIPTS = [
    "Καλημέρα κόσμε", "Привет, мир! Как дела?", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "こんにちは世界、カタカナ", "안녕하세요 세계", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ", "வணக்கம் உலகம்", "হ্যালো বিশ্ব",
    "Xin chào thế giới", "ሰላም ልዑል", "Grüße aus Köln, Straße, ÄÖÜ", "ça va? œuvre, naïve, façade",
    "Łódź, żółć, źdźbło", "İstanbul ığdır", "ǅ ǈ ǋ ﬁ ﬂ ß ẞ ſ",
]  # fmt: skip
EMOJI = "😀 😅 🤔 👍 👍🏽 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇯🇵 ❤️ ✨ ☃ ⚡️ 🦀 1️⃣ ©️ 🧑🏿‍🚀 🫠 🪿".split()
SPACES = [
    " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028",
    "\u2029", "\u202f", "\u3000", "\u200b", "\x1c", "\x1f", "        ", "    \n", " \t ",
]  # fmt: skip
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>",
    "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>",
    "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>", "<|im_start", "im_end|>",
    "<|im_end|>>", "<<|im_end|>", "<|IM_END|>", "<s>", "</s>", "<|", "|>", "<|im_start|>user\n", "<|im_end|>\n",
    "<|im_ end|>", "<0x0A>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "<bos>", "<eos>", "<|user|>", "<|end|>", "[INST]",
    "<start_of_turn>", "<end_of_turn>", "<|fim_prefix|>", "<fim_middle>", "<|begin_of_text|>", "<|eot_id|>", "<think>",
    "</think>", "<unused7>", "<｜begin▁of▁sentence｜>", "<｜fim▁hole｜>", "▁", "▁▁", ">>QUESTION<<", "Ġ", "##ing",
]  # fmt: skip
NUMBERS = [
    "0", "7", "42", "123", "1234", "3.14159", "1,234,567.89", "-5", "+1e10", "0xFF", "2024-05-17", "12:34:56",
    "50%", "$9.99", "½", "x²", "Ⅷ", "①", "٣٤٥", "४५६", "１２３", "𝟙𝟚", "1st", "v2.0.1", "10^-3", "6.02e23", "1/2",
    "007", "a1b2c3", "〇", "十",
]  # fmt: skip
CONTRACTIONS = [
    "don't", "DON'T", "it's", "IT'S", "we'll", "they've", "I'm", "you're", "he'd", "she'D", "'tis", "o'clock",
    "rock'n'roll", "it’s", "'s", "'S", "''s", " 's", "s'", "'LL", "y'all'd've", "l'homme", "'t", "'re're", "can 't",
    "I'Ve",
]  # fmt: skip
MARKS = "\u0301\u0308\u0327\u0323\u20dd\u0489\u093f\u0e34\ufe0f\u05bc\u064b\u309a"
CONTROLS = "".join(map(chr, (*range(32), *range(127, 160)))) + "\u00ad\u061c\u200d\u200e\u202e\u2060\ufeff\ufffd\uffff"
PUNCTUATION = [*"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~—“”«»…¿·€→≤∑", "...", "//", "**", "```"]


def words(rng, text):
    start = rng.randrange(len(text))
    return text[start : start + rng.randrange(3, 160)]


def mix(rng, *tables):
    """A handful of entries of the tables, put together with or without something between."""
    between = rng.choice(["", "", " ", " ", "\n", "  "])
    return between.join(rng.choice(rng.choice(tables)) for _ in range(rng.randrange(1, 9)))


def mutate(rng, text):
    """The text with a few characters doubled, dropped, or changed in case."""
    chars = list(text)
    for _ in range(rng.randrange(1, 6)):
        i = rng.randrange(len(chars))
        chars[i] = rng.choice([chars[i] * 2, "", chars[i].swapcase(), chars[i] + " "])
    return "".join(chars)


def any_characters(rng):
    ranges = [
        (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0xE00), (0x1E00, 0x2C00), (0x3040, 0x9FFF),
        (0xAC00, 0xD7A4), (0xF900, 0xFFFE), (0x1F300, 0x1FAFF), (0x10000, 0x1F000), (0x20000, 0x2FA20),
    ]  # fmt: skip
    drawn = (chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 30)))
    return "".join(char for char in drawn if unicodedata.category(char) != "Cn")  # it may become a letter one day


def strings(count, seed=20, specials=()):
    """So many different strings; `specials` are drawn from as well as `SPECIALS`."""
    rng, special = random.Random(seed), [*SPECIALS, *specials]
    english = (HERE / "alice.txt").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in sorted(HERE.parents[1].glob("nbllm/[ft]*/*.py")))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/="
    kinds = [
        lambda: words(rng, english),
        lambda: words(rng, sources),
        lambda: mutate(rng, rng.choice(CODE)),
        lambda: mutate(rng, rng.choice(CHINESE)),
        lambda: mix(rng, CHINESE, [words(rng, english)]),
        lambda: mix(rng, EMOJI, CONTRACTIONS),
        lambda: mix(rng, SPACES),
        lambda: mix(rng, SPACES, NUMBERS, CONTRACTIONS),
        lambda: mix(rng, special),
        lambda: mix(rng, special, CHINESE, SPACES, CONTRACTIONS),
        lambda: mix(rng, NUMBERS, PUNCTUATION),
        lambda: mix(rng, CONTRACTIONS),
        lambda: mix(rng, SCRIPTS, NUMBERS),
        lambda: mutate(rng, mix(rng, SCRIPTS)),
        lambda: "".join(char + rng.choice(MARKS) * rng.randrange(3) for char in mix(rng, SCRIPTS, CONTRACTIONS)),
        lambda: mix(rng, CONTROLS),
        lambda: mix(rng, CONTROLS, CONTRACTIONS, NUMBERS),
        lambda: mix(rng, PUNCTUATION),
        lambda: "".join(rng.choice(letters) for _ in range(rng.randrange(1, 120))),
        lambda: rng.choice(["a", "ha", "=", "-", "0", " ", "\n", "é", "字", "🦀", "ab ", "_"]) * rng.randrange(1, 80),
        lambda: any_characters(rng),
    ]
    found = dict.fromkeys(["", " "])
    for kind in itertools.cycle(kinds):
        if len(found) == count:
            return list(found)
        found[kind()] = None
