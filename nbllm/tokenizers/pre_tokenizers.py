"""How text is cut into words before byte-pair encoding, by the name that a model file gives (`tokenizer.ggml.pre`).

The patterns are those of the models' own tokenizers. They use Unicode classes, which `regex` has and `re` lacks.
"""

from dataclasses import dataclass

from ..errors import ModelFileError


@dataclass(frozen=True)
class PreTokenizer:
    """One way of cutting.

    Attributes
    ----------
    patterns : tuple of str
        Each cuts the pieces that the one before it left, into its matches and what lies between them.
    whole_words : bool
        A word that is a token is not merged but taken whole.
    add_bos : bool
        Whether sequences begin with BOS where the file does not say.
    """

    patterns: tuple
    whole_words: bool = False
    add_bos: bool = False


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SHORT = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"  # (?i:...) would take the long s for an s
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"
QWEN35 = (
    rf"{SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Words by their case: capitals then small letters. Letters without case may stand in either part.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = r"[^\r\n\p{{L}}\p{{N}}]?{0}*{1}+{2}|[^\r\n\p{{L}}\p{{N}}]?{0}+{1}*{2}".format
CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{CASED(UPPER, LOWER, '')}|\p{{N}}|{CASED_REST}"
GPT4O = rf"{CASED(UPPER, LOWER, f'(?:{SHORT})?')}|\p{{N}}{{1,3}}|{CASED_REST}"

PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"
DIGIT, DIGITS, THREE = r"\p{N}", r"\p{N}+", r"[0-9][0-9][0-9]"

# DeepSeek lists the letters that have case, as they were when its vocabulary was made.
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-"
    "\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
EAST_ASIAN = r"(?:(?!\s)[\u0800-\u9fa5\uac00-\ud7ff])+"
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{CASED_LETTERS}]+",
    r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]+",
    r"(?<!\s)\s++\Z",
    EAST_ASIAN,
    DIGITS,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN, DIGIT)
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)

PRE_TOKENIZERS = {
    name: pre_tokenizer
    for names, pre_tokenizer in {
        "default": PreTokenizer((PUNCTUATION, GPT2, DIGITS, THREE)),
        "gpt-2 phi-2 mpt olmo jais exaone4 mellum modern-bert trillion granite-docling": PreTokenizer((GPT2,)),
        "smollm starcoder refact command-r codeshell exaone minerva-7b": PreTokenizer((DIGIT, GPT2)),
        "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, THREE)),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2": PreTokenizer((LLAMA3,), True, add_bos=True),
        "glm4": PreTokenizer((LLAMA3,), True),
        "chatglm-bpe dbrx smaug-bpe": PreTokenizer((LLAMA3,)),
        "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 solar-open": PreTokenizer((QWEN2,)),
        "qwen35": PreTokenizer((QWEN35,)),
        "tekken": PreTokenizer((TEKKEN,), True, add_bos=True),
        "gpt-4o llama4 kanana2": PreTokenizer((GPT4O,)),
        "deepseek-llm": PreTokenizer(DEEPSEEK_LLM),
        "deepseek-coder": PreTokenizer(DEEPSEEK_CODER),
        "deepseek-v3 hunyuan-dense": PreTokenizer(DEEPSEEK3),
    }.items()
    for name in names.split()
}


def pre_tokenizer(name, at=""):
    """The one of this name; ModelFileError when there is none, which says where the name is: `at`."""
    if name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise ModelFileError(
            f"tokenizer.ggml.pre is {name[:80]!r}{at}, a pre-tokenizer that is not supported; use a model file with "
            f"one of {known}."
        )
    return PRE_TOKENIZERS[name]
