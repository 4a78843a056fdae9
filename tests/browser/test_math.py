"""Mathematics in the panel: MathML of what models write, characters of what cannot be read, and nothing else."""

from browser.pages import XSS, inert

from nbllm.jupyter.markdown import _INLINE

SHORT = """(node) => { // tags and texts, without the rows that only hold together
  const short = (each) => {
    const inner = [...each.childNodes].map((n) => (n.nodeType === 3 ? n.data : short(n))).join(" ");
    return each.localName === "mrow" ? inner : each.localName === "mspace" ? "" :
      ["mi", "mn", "mo"].includes(each.localName) ? inner : `${each.localName.slice(1)}(${inner})`; };
  return short(node).replace(/\\s+/g, " ").replace(/ ?([()]) ?/g, "$1"); }"""
READ = {
    r"\frac{-b \pm \sqrt{b^2-4ac}}{2a}": "ath(frac(− b ± sqrt(sup(b 2)− 4 a c)2 a))",
    r"\frac12 + x^10": "ath(frac(1 2)+ sup(x 1)0)",
    r"\sum_{i=1}^n i": "ath(underover(∑ i = 1 n)i)",
    r"\int_0^\infty f(x)\,dx": "ath(subsup(∫ 0 ∞)f(x)d x)",
    r"\sum\nolimits_i a_i \int\limits_C": "ath(sub(∑ i)sub(a i)under(∫ C))",
    r"\lim_{x \to 0} \sin x": "ath(under(lim x → 0)sin x)",
    r"\sqrt[3]{x} \binom n k {a \over b} {n \choose k}": "ath(root(x 3)(frac(n k))frac(a b)(frac(n k)))",
    r"\left( \frac ab \middle| \right.": "ath((frac(a b)|)",
    r"\left\{ x \right] \big\| \langle": "ath({ x ] ‖ ⟨)",
    r"f' f''^2 x_1'": "ath(sup(f ′)sup(f ′′ 2)subsup(x 1 ′))",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}": "ath((table(tr(td(a)td(b))tr(td(c)td(d)))))",
    r"\begin{cases} 1 & \text{if } x \\ 0 \end{cases}": "ath({ table(tr(td(1)td(text(if)x))tr(td(0))))",
    r"\begin{array}{c|c} a & b \end{array}": "ath(table(tr(td(a)td(b))))",
    r"\begin{align*} a &= b \\[2pt] &= c \\ \end{align*}": "ath(table(tr(td(a)td(= b))tr(td()td(= c))))",
    r"a &= b \\ c &= d": "ath(table(tr(td(a)td(= b))tr(td(c)td(= d))))",
    r"\mathbb{RN} \mathcal L \mathbf{x1} \mathfrak{g} \boldsymbol\alpha": "ath(ℝ ℕ ℒ 𝐱 𝟏 𝔤 𝜶)",
    r"\hat\beta \vec{v} \overbrace{a}^{n} \underbrace{b}_2":
        "ath(over(β ^)over(v →)over(over(a ⏞)n)under(under(b ⏟)2))",
    r"\overset{!}{=} \xrightarrow[b]{a} \underset{x}{y}": "ath(over(= !)underover(→ b a)under(y x))",
    r"\operatorname{softmax}(z) \operatorname*{arg\,max}_x": "ath(softmax(z)under(arg\\,max x))",
    r"a \equiv b \pmod n \not= c \ne d": "ath(a ≡ b(mod n)≠ c ≠ d)",
    r"\textcolor{red}{x} \label{y} \dfrac{1}{2} {}^2": "ath(x style(frac(1 2))sup(2))",
    r"\unknown{x} \href{javascript:alert(1)}{y}":
        "ath(text(\\unknown)x text(\\href)j a v a s c r i p t : a l e r t(1)y)",
    "x < y > z & \\text{<b>$a$ \\& é}": "ath(table(tr(td(x < y > z)td(text(<b>$a$ & é)))))",
}
UNREADABLE = {  # and its characters
    r"\frac{a}{b": r"\frac{a}{b", "x^2^3": "x^2^3", r"\left( x": "( x", "}": "}", r"\frac": r"\frac", "x^": "x^",
    r"\begin{tikz}x\end{tikz}": r"\begin{tikz}x\end{tikz}", r"\begin{cases} a": r"\begin{cases} a",
    r"\alpha \end{x}": r"α\end{x}", r"\sqrt{\frac{a}{b}": "√{(a)/(b)",
    r"\right) \constructor": r") \constructor", r"\not\frac12": r"\not\frac12",
    "{" * 41 + "x" + "}" * 41: "{" * 41 + "x" + "}" * 41,
    "x^" * 500: "x^" * 500,
}  # fmt: skip
DELIMITED = [
    r"It is \(a\), \( b \) and \[c\].", "It costs $5 and $6, or $7.", "So $a$, $b$c and $d$4, $ e$, $f $.",
    "One $$a$$ two.\n$$\nb\n$$\nthree",
    "No `$a$` nor ``\\(b\\)`` but $c$.", "\\[\na\n\\]", "\\[\na\n\n\\]", "$$a\n\nb$$",
    r"A \$a$ and \\(b\\), $c\$ d$.", "- \\(a\\)\n- $$b$$",
    "> \\[ a \\]", "So: \\[\na\n- b\n# c\n\\]\nand $d$.", "**$a$ and *$b$***", "```\n$a$\n```\n\n$b$",
    "$$a$$ $b$\n$c\nd$", "$a$$b$",
]  # fmt: skip


def test_what_models_write_is_typeset(panel):
    panel.show(*(text for source in READ for text in ("q", f"\\[{source}\\]")))
    assert [each.evaluate(SHORT) for each in panel.page.locator("math").all()] == list(READ.values())
    inert(panel)


def test_what_cannot_be_read_is_shown_as_characters(panel):
    panel.show(*(text for source in UNREADABLE for text in ("q", f"\\[{source}\\]")))
    assert panel.page.locator(".nbllm-model .nbllm-text").all_text_contents() == list(UNREADABLE.values())
    assert panel.page.locator("math, mi, mo").count() == 0


def test_the_browser_sets_it(panel):
    panel.show("q", r"$$\frac{a}{b}$$ and $\sum_i$ and $$\sum_i$$ and $\left(\frac{\frac{a}{b}}{c}\right) (x)$")
    tops = "(all) => all.map((each) => Math.round(each.getBoundingClientRect().top))"
    above, below = panel.page.eval_on_selector_all(".nbllm-display:first-child mfrac > *", tops)
    assert below > above + 5
    beside = """(all) => all.map((each) => {
        const [base, limit] = [...each.children].map((child) => child.getBoundingClientRect());
        return limit.left >= base.right; })"""
    assert panel.page.eval_on_selector_all("munder", beside) == [True, False]  # in a line, and on a line of its own
    height = "(all) => all.map((each) => each.getBoundingClientRect().height)"
    heights = panel.page.eval_on_selector_all("mo[form=prefix]", height)
    assert heights[0] > 1.5 * heights[1]
    colours = panel.page.evaluate("""() => [".nbllm-panel", "math"].map((each) =>
        getComputedStyle(document.querySelector(each)).color)""")
    assert colours[0] == colours[1]


def test_it_is_what_a_cell_takes_for_mathematics(panel):
    for text in DELIMITED:
        kinds, prose = ("round", "square", "display", "inline"), text.partition("```\n\n")[2] or text
        found = [match[match.lastgroup] for match in _INLINE.finditer(prose) if match.lastgroup in kinds]
        panel.show("q", text)
        closely = "(all) => all.map((each) => each.textContent.replace(/\\s/g, ''))"
        shown = panel.page.eval_on_selector_all(".nbllm-math", closely)
        assert shown == ["".join(each.strip("$").split()).replace("-", "−") for each in found], text


def test_it_is_characters_until_it_is_closed(panel):
    panel.show()
    panel.tell("begin", question="hi", again=False)
    pieces = {"It is ": 0, "$\\frac{1}": 0, "{2}": 0, "$": 1, ", or\n\n\\[\nx": 1, "\n- y\n": 1, "\\]": 2,
              " $$z": 2, "$$": 3}
    for text, made in pieces.items():
        panel.grow(text)
        assert panel.page.locator("math").count() == made, text
    panel.tell("begin", question="hi", again=False)
    panel.grow("$\\frac{1}")
    assert panel.text(".nbllm-model .nbllm-text") == "$\\frac{1}"


def test_hostile_mathematics_is_text_and_bounded(panel):
    ways = [r"$$\text{%s}$$", r"\(%s\)", r"\[\href{%s}{x}\]", r"$\html{%s}$", r"\[\begin{%s} x \end{%s}\]",
            r"\[\class{%s}{x}\style{%s}{y}\]"]
    lines = [way.replace("%s", line) for line in XSS for way in ways]
    deep = 10_000
    huge = ["{" * deep + "}" * deep, r"\frac{" * deep + "1" + "}{2}" * deep, r"\sqrt" * deep + "x",
            "x^{" * deep + "}" * deep, "x_" * deep,
            r"\left(" * deep + r"\right)" * deep, r"\begin{matrix}" * deep, "a" * 1_000_000, " " * 1_000_000 + "x",
            r"\\" * deep, "&" * deep,
            r"\begin{matrix}" * 30 + "&" * 300 + r"\end{matrix}" * 30, r"\hat" * 300, "'" * 1900, r"\Bigg" * 300,
            "\U0001d400" * 900, "\\" * 1999,
            r"\text{" * 300, r"\color{javascript:alert(1)}x", r"\hspace{1000000em}x",
            r"\begin{array}{*{1000000}{c}}x\end{array}"]  # fmt: skip
    around = (("$$", "$$"), (r"\(", r"\)"), ("\\[\n", "\n\\]"), ("$$", ""))
    lines += [opened + source + closed for source in huge for opened, closed in around]
    lines += ["$$\n" * 30_000, "\\[\n" * 30_000, "\\[" * deep, "$" * deep, "`$$" * deep, "$$`" * deep, "$x$ " * 4000,
              " " * 100_000 + "$$ x"]
    for at in range(0, len(lines), 60):
        some = lines[at : at + 60]
        panel.show(*(text for each in some for text in ("q", each)))
        inert(panel)
        measured = panel.page.eval_on_selector_all(".nbllm-model .nbllm-text", """(all) => all.map((each) => {
                let deepest = 0;
                for (const node of each.querySelectorAll("*")) {
                  let depth = 0;
                  for (let up = node; up !== each; up = up.parentElement) depth += 1;
                  deepest = Math.max(deepest, depth);
                }
                return [each.textContent.slice(0, 40), each.querySelectorAll("*").length, deepest]; })""")  # fmt: skip
        for text, nodes, depth in measured:
            assert nodes <= 60_010 and depth <= 250, text
