// TeX's mathematics to MathML, which browsers typeset. Elements and attributes are of the tables, text only becomes
// text nodes, and an unknown command stays its characters. What cannot be read is shown as characters altogether, and
// so is what is longer or deeper than an honest formula. Knows nothing of Markdown.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const LONGEST_MATH = 2000; // characters
const DEEPEST_MATH = 40; // groups within groups
const TOKEN = /\\[A-Za-z]+|\\[^]|\d+(?:\.\d+)?|[^](?:\p{M}|\u200d[^])*/gu; // what is one to the reader stays together
const DISTANCE = /^\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in|mu)\s*\]/;
const ENDS = listed("} & \\\\ \\right \\middle \\end"); // of a row
const SIGNS = listed("+ − ± ∓");
const CLOSELY = listed("! . … ′ ° % ? \" @ '"); // no space around them

function make(tag, attributes, ...children) {
  const node = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const row = (...nodes) => make("mrow", {}, ...nodes);
const operator = (text, attributes = {}) => make("mo", attributes, text);
const bar = (text, attributes = {}) => operator(text, { stretchy: "false", lspace: "0", rspace: "0", ...attributes });
const fence = (text, form, stretchy = "true") => (text ? [operator(text, { form, stretchy })] : []);
const bracketed = (left, node, right) => row(...fence(left, "prefix"), node, ...fence(right, "postfix"));
const space = (width) => make("mspace", { width: `${width}em` });
const limit = (text) => operator(text, { movablelimits: "true", form: "prefix", lspace: "0", rspace: "0" });
const styled = (display, ...children) => make("mstyle", { displaystyle: String(display) }, ...children);

class Unreadable extends Error {}

// What stands in a row: a node, and what it is: "ordinary", "function", "big", "operator", "open", "close" or "space".
const item = (node, kind = "ordinary", limits = false) => ({ node, kind, limits });

class Formula {
  constructor(source) {
    this.source = source;
    this.tokens = [...source.matchAll(TOKEN)].map((match) => ({ text: match[0], at: match.index }))
      .filter(({ text }) => text[0] === "\\" || text.trim());
    this.at = this.depth = 0;
    this.font = null;
  }

  get next() { return this.tokens[this.at]?.text; }

  take() {
    if (this.at >= this.tokens.length) throw new Unreadable();
    return this.tokens[this.at++].text;
  }

  skip(text) {
    const found = this.next === text;
    if (found) this.at += 1;
    return found;
  }

  expect(text) { if (!this.skip(text)) throw new Unreadable(); }

  deeper(read) {
    if ((this.depth += 1) > DEEPEST_MATH) throw new Unreadable();
    const made = read();
    this.depth -= 1;
    return made;
  }

  whole() { // models write & and \\ without saying of what, too
    const rows = this.grid();
    if (this.next !== undefined) throw new Unreadable();
    return rows.length === 1 && rows[0].length === 1 ? rows[0][0] : this.table(rows, "aligned");
  }

  // Rows of cells, up to the end of what they stand in.
  grid() {
    const rows = [[]];
    for (;;) {
      rows[rows.length - 1].push(row(...this.row()));
      if (this.skip("&")) continue;
      if (!this.skip("\\\\")) break;
      if (this.next === "[" && DISTANCE.test(this.source.slice(this.tokens[this.at].at))) this.bracket();
      rows.push([]);
    }
    const last = rows[rows.length - 1];
    if (rows.length > 1 && last.length === 1 && !last[0].childNodes.length) rows.pop();
    return rows;
  }

  table(rows, name) {
    const kind = ALIGNED.has(name) ? "nbllm-aligned" : name.endsWith("cases") ? "nbllm-cases" : "nbllm-matrix";
    const cells = rows.map((cells) => make("mtr", {}, ...cells.map((cell) => make("mtd", {}, cell))));
    const small = name.endsWith("matrix") || name === "array" || kind === "nbllm-cases";
    const made = make("mtable", { class: kind, displaystyle: String(!small) }, ...cells);
    const [left, right] = ENVIRONMENTS[name];
    return left || right ? bracketed(left, made, right) : made;
  }

  // Nodes up to what ends a row, which is left standing.
  row(until = null) {
    return this.deeper(() => {
      let items = [];
      const font = this.font;
      for (let text = this.next; text !== undefined && text !== until && !ENDS.has(text); text = this.next) {
        const name = text[0] === "\\" ? text.slice(1) : "";
        if (Object.hasOwn(DIVIDED, name)) {
          this.at += 1;
          const made = make("mfrac", DIVIDED[name], row(...spaced(items)), row(...this.row(until)));
          items = [item(name === "choose" ? bracketed("(", made, ")") : made)];
        } else if (name === "displaystyle" || name === "textstyle") {
          this.at += 1;
          items.push(item(styled(name === "displaystyle", ...this.row(until))));
        } else if (Object.hasOwn(SWITCHES, name)) {
          this.at += 1;
          this.font = SWITCHES[name];
        } else {
          const made = this.scripted(this.atom(items[items.length - 1]));
          if (made) items.push(made);
        }
      }
      this.font = font;
      return spaced(items);
    });
  }

  // An atom with what stands above and below it.
  scripted(base) {
    let below = null, above = null, limits = base?.limits;
    for (;;) {
      if (this.next === "^" || this.next === "_") {
        const up = this.take() === "^";
        if (up ? above : below) throw new Unreadable();
        if (up) above = this.argument(); else below = this.argument();
      } else if (this.next === "'" || this.next === "’") {
        if (above) throw new Unreadable();
        let primes = "";
        while (this.skip("'") || this.skip("’")) primes += "′";
        above = operator(primes, { lspace: "0", rspace: "0" });
        if (this.skip("^")) above = row(above, this.argument());
      } else if (this.next === "\\limits" || this.next === "\\nolimits") limits = this.take() === "\\limits";
      else break;
    }
    if (!below && !above) return base;
    const tags = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    const tag = tags[above && below ? 2 : above ? 1 : 0];
    return item(make(tag, {}, ...[base?.node ?? row(), below, above].filter(Boolean)), base?.kind);
  }

  // The smallest whole; null for what has nothing to see.
  atom(previous) {
    const text = this.take();
    if (text === "{") {
      const node = row(...this.row());
      this.expect("}");
      return item(node);
    }
    if (["^", "_", "'", "’"].includes(text)) { this.at -= 1; return null; } // above and below nothing
    if (text[0] === "\\") return this.command(text.slice(1), previous);
    if (/^\d/.test(text)) return item(make("mn", {}, this.letters(text)));
    if (/^[\p{L}\p{M}]/u.test(text)) return item(this.letter(text));
    return this.sign(text, previous);
  }

  letters(text) { // in the font that is set
    return [...text].map((letter) => {
      const start = STARTS.findIndex(([from, to]) => letter >= from && letter <= to);
      const from = FONTS[this.font]?.[start];
      if (from === undefined) return letter;
      const code = from + letter.codePointAt(0) - STARTS[start].codePointAt(0);
      return HOLES[code.toString(16)] ?? String.fromCodePoint(code);
    }).join("");
  }

  letter(text, upright = false) {
    return make("mi", upright || this.font === "mathrm" ? { mathvariant: "normal" } : {}, this.letters(text));
  }

  sign(text, previous) {
    const first = !["ordinary", "close"].includes(previous?.kind); // what follows is no second operand
    if (Object.hasOwn(OPEN, text)) return item(fence(OPEN[text], "prefix", "false")[0], "open");
    if (Object.hasOwn(CLOSE, text)) return item(fence(CLOSE[text], "postfix", "false")[0], "close");
    if (text === "|" || text === "‖") return item(bar(text), first ? "open" : "close");
    if (text === "~") return item(space(SPACES[" "]), "space");
    if (CLOSELY.has(text)) return item(bar(text));
    if (!/^[\p{S}\p{P}]/u.test(text)) return item(make("mtext", {}, text)); // whatever it is, it is only text
    const shown = text === "-" ? "−" : text === "*" ? "∗" : text;
    return item(operator(shown, first && SIGNS.has(shown) ? { form: "prefix" } : {}), "operator");
  }

  command(name, previous) {
    const own = (table) => Object.hasOwn(table, name);
    if (own(COMMANDS)) return COMMANDS[name](this, name);
    if (own(GREEK)) return item(this.letter(GREEK[name]));
    if (own(ORDINARY)) return item(this.letter(ORDINARY[name], true));
    if (own(OPERATORS)) return this.sign(OPERATORS[name], previous);
    if (own(OPEN)) return item(fence(OPEN[name], "prefix", "false")[0], "open");
    if (own(CLOSE)) return item(fence(CLOSE[name], "postfix", "false")[0], "close");
    if (own(BIG)) return item(operator(BIG[name], { movablelimits: "true" }), "big", true);
    if (own(INTEGRALS)) return item(operator(INTEGRALS[name]), "big");
    if (FUNCTIONS.has(name)) return item(make("mi", {}, name), "function");
    if (own(LIMITS)) return item(limit(LIMITS[name].replace("_", "\u2009")), "function", true);
    if (own(BARS)) return this.sign(name === "|" ? "‖" : BARS[name], previous);
    if (own(SPACES)) return item(space(SPACES[name]), "space");
    if (own(ABOVE) || own(BELOW)) return this.marked(name);
    if (TEXTS.has(name)) return item(make("mtext", { class: `nbllm-${name}` }, this.raw()));
    if (own(FONTS) || own(OTHER_FONTS)) return item(this.inFont(OTHER_FONTS[name] ?? name));
    return SKIPPED.has(name) ? null : item(make("mtext", {}, `\\${name}`));
  }

  // One token or one group. A number is taken digit by digit, as TeX does: \frac12, x^10.
  argument() {
    const token = this.tokens[this.at];
    if (!token || ENDS.has(token.text) || ["^", "_", "'", "’"].includes(token.text)) throw new Unreadable();
    if (/^\d./.test(token.text)) {
      this.tokens[this.at] = { text: token.text.slice(1), at: token.at + 1 };
      return make("mn", {}, this.letters(token.text[0]));
    }
    return this.deeper(() => this.atom()?.node ?? row());
  }

  // What stands in brackets, if anything does.
  bracket() {
    if (!this.skip("[")) return null;
    const made = row(...this.row("]"));
    this.expect("]");
    return made;
  }

  // A group as it was written.
  raw() {
    const from = this.tokens[this.at]?.at + 1;
    this.expect("{");
    for (let open = 1; open;) {
      const text = this.take();
      open += text === "{" ? 1 : text === "}" ? -1 : 0;
    }
    const text = this.source.slice(from, this.tokens[this.at - 1].at);
    return text.replace(/\\([#$%&_{} ])/g, "$1").replace(/^ | $/g, "\u00a0"); // else a space at the end is not seen
  }

  inFont(font) {
    const before = this.font, begun = this.tokens[this.at];
    this.font = font;
    const word = font === "mathrm" && begun && /^\{[A-Za-z]{2,}\}/.test(this.source.slice(begun.at));
    const made = word ? make("mi", {}, this.raw()) : this.argument(); // letters in one are a word, and upright by that
    this.font = before;
    return made;
  }

  marked(name) {
    const above = Object.hasOwn(ABOVE, name);
    const mark = operator(above ? ABOVE[name] : BELOW[name], { stretchy: String(WIDE.has(name)) });
    const attributes = { [above ? "accent" : "accentunder"]: "true" };
    const made = make(above ? "mover" : "munder", attributes, this.argument(), mark);
    return item(made, "ordinary", /brace|paren/.test(name));
  }

  // What \left, \right and \big take.
  delimiter() {
    const text = this.take(), name = text.replace(/^\\/, "");
    if (text === "." || text === "\\|") return text === "." ? "" : "‖";
    const found = [OPEN, CLOSE, BARS].find((table) => Object.hasOwn(table, name));
    if (!found) throw new Unreadable();
    return found[name];
  }

  left() {
    const parts = fence(this.delimiter(), "prefix");
    parts.push(...this.row());
    while (this.skip("\\middle")) parts.push(bar(this.delimiter(), { stretchy: "true" }), ...this.row());
    this.expect("\\right");
    return item(row(...parts, ...fence(this.delimiter(), "postfix")));
  }

  environment() {
    const name = this.raw(), plain = name.replace(/\*$/, "");
    if (!Object.hasOwn(ENVIRONMENTS, plain)) throw new Unreadable();
    if (WITH_COLUMNS.has(plain)) { this.bracket(); this.raw(); }
    const made = this.table(this.deeper(() => this.grid()), plain);
    this.expect("\\end");
    if (this.raw() !== name) throw new Unreadable();
    return item(made);
  }

  sized(name) {
    const size = `${SIZES[name.replace(/[lrm]$/, "")]}em`;
    const made = bar(this.delimiter(), { stretchy: "true", symmetric: "true", minsize: size, maxsize: size });
    return item(made, name.endsWith("l") ? "open" : name.endsWith("r") ? "close" : "ordinary");
  }
}

// The nodes of a row. Functions stand a little apart from letters and numbers.
function spaced(items) {
  return items.flatMap(({ node, kind }, n) => {
    const before = items[n - 1]?.kind;
    const apart = kind === "function" ? ["ordinary", "close", "function"].includes(before)
      : kind === "ordinary" && before === "function";
    return apart ? [space(SPACES[","]), node] : [node];
  });
}

const fraction = (formula, attributes = {}) => make("mfrac", attributes, formula.argument(), formula.argument());
const binomial = (formula) => bracketed("(", fraction(formula, { linethickness: "0" }), ")");
const inClass = (name) => (formula) => item(make("mrow", { class: name }, formula.argument()));
const unchanged = (formula) => item(formula.argument());
const modulo = (...brackets) => (formula) => {
  const number = brackets.length ? [formula.argument()] : [], [left = "", right = ""] = brackets;
  const word = [make("mi", {}, "mod"), space(0.3)];
  const around = [fence(left, "prefix", "false"), fence(right, "postfix", "false")];
  return item(row(space(0.5), ...around[0], ...word, ...number, ...around[1]));
};
const arrow = (text) => (formula) => {
  const below = formula.bracket(), made = operator(text, { stretchy: "true" });
  const parts = below ? [below, formula.argument()] : [formula.argument()];
  return item(make(below ? "munderover" : "mover", {}, made, ...parts), "operator");
};
const stacked = (tag) => (formula) => {
  const small = formula.argument();
  return item(make(tag, {}, formula.argument(), small), "operator");
};

const COMMANDS = {
  frac: (formula) => item(fraction(formula)),
  dfrac: (formula) => item(styled(true, fraction(formula))),
  tfrac: (formula) => item(styled(false, fraction(formula))),
  binom: (formula) => item(binomial(formula)),
  dbinom: (formula) => item(styled(true, binomial(formula))),
  sqrt: (formula) => {
    const root = formula.bracket(), of = formula.argument();
    return item(root ? make("mroot", {}, of, root) : make("msqrt", {}, of));
  },
  left: (formula) => formula.left(),
  begin: (formula) => formula.environment(),
  overset: stacked("mover"), stackrel: stacked("mover"), underset: stacked("munder"),
  xrightarrow: arrow("→"), xleftarrow: arrow("←"), xRightarrow: arrow("⇒"),
  substack: (formula) => {
    formula.expect("{");
    const made = formula.table(formula.deeper(() => formula.grid()), "matrix");
    formula.expect("}");
    return item(made);
  },
  operatorname: (formula) => {
    const starred = formula.skip("*");
    return starred ? item(limit(formula.raw()), "function", true) : item(formula.inFont("mathrm"), "function");
  },
  pmod: modulo("(", ")"), bmod: modulo(), mod: modulo(),
  not: (formula) => {
    const { node, kind } = formula.atom() ?? {};
    if (!node || node.childElementCount || !node.textContent) throw new Unreadable();
    node.textContent += "\u0338"; // a stroke through it
    return item(node, kind);
  },
  tag: (formula) => item(make("mtext", {}, `\u2003(${formula.raw()})`)),
  overline: inClass("nbllm-line-above"), underline: inClass("nbllm-line-below"), boxed: inClass("nbllm-boxed"),
  cancel: inClass("nbllm-cancelled"), bcancel: inClass("nbllm-cancelled"),
  phantom: (formula) => item(make("mphantom", {}, formula.argument())),
  color: (formula) => { formula.raw(); return null; },
  label: (formula) => { formula.raw(); return null; },
  textcolor: (formula) => { formula.raw(); return unchanged(formula); },
  hspace: (formula) => { formula.skip("*"); formula.raw(); return item(space(0.5), "space"); },
  mathop: (formula) => item(formula.argument(), "function", true),
  mathrel: unchanged, mathbin: unchanged, mathord: unchanged, ensuremath: unchanged,
};
const { dfrac, binom, phantom } = COMMANDS;
Object.assign(COMMANDS, { cfrac: dfrac, tbinom: binom, vphantom: phantom, hphantom: phantom });
for (const size of Object.keys(SIZES)) {
  for (const side of ["", "l", "r", "m"]) COMMANDS[size + side] = (formula, name) => formula.sized(name);
}

// As characters, what could not be read: the commonest commands become theirs.
function mathText(source) {
  return source.replace(/\\frac\{([^{}]*)\}\{([^{}]*)\}/g, "($1)/($2)")
    .replace(/\\(?:left|right|text|mathrm|mathbf)(?![A-Za-z])/g, "").replace(/\\sqrt(?![A-Za-z])/g, "√")
    .replace(/\\([A-Za-z]+)\s?/g, (whole, name) => (Object.hasOwn(CHARACTERS, name) ? CHARACTERS[name] : whole))
    .replace(/\\[,;! ]/g, " ");
}

function mathematics(source, display) {
  const shown = element("span", display ? "nbllm-math nbllm-display" : "nbllm-math");
  try {
    if (source.length > LONGEST_MATH) throw new Unreadable();
    shown.append(make("math", { display: display ? "block" : "inline" }, new Formula(source).whole()));
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    shown.append(mathText(source.trim()));
  }
  return shown;
}
