// Markdown as models write it, to elements. Text only ever becomes text nodes and attributes of elements made here, never
// markup, so nothing of a reply can run or be fetched; links are http(s) and mailto, and images are named, not loaded.

const LONGEST_INLINE = 20000; // characters; what is longer is shown as it is
const DEEPEST = 8; // emphasis within emphasis, lists within lists
const FENCE = /^ {0,3}(`{3,}|~{3,})[^\S\n]*([^\s`]*)[^\n`]*$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const MATH_BEGIN = /^\s*(\$\$|\\\[)/;
const KEYWORDS = new Set((
  "and as assert async await break case catch class const continue def default del do elif else enum except export extends false False " +
  "finally fn for from function global if impl import in interface is lambda let loop match mod mut new None nonlocal not null or pass " +
  "print pub raise return self static struct super switch this throw true True try type typeof undefined use var void while with yield"
).split(" "));
const HASH = new Set(["", "python", "py", "ipython", "python3", "sh", "bash", "shell", "r", "ruby", "yaml", "toml", "julia", "perl"]);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// The text in blocks, each the source of one element. The last may still grow.
function blocks(text) {
  const found = [];
  let lines = [], fence = null, math = false;
  const end = () => { if (lines.some((line) => line.trim())) found.push(lines.join("\n")); lines = []; };
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line);
    if (fence) {
      lines.push(line);
      if (mark && mark[1].startsWith(fence) && !mark[2]) { fence = null; end(); }
    } else if (math) {
      lines.push(line);
      if (/(\$\$|\\\])\s*$/.test(line)) { math = false; end(); }
    } else if (mark) {
      end(); lines.push(line); fence = mark[1];
    } else if (MATH_BEGIN.test(line)) {
      end(); lines.push(line);
      if (/\S\s*(\$\$|\\\])\s*$/.test(line.trim().slice(2))) end(); else math = true;
    } else if (!line.trim()) {
      // a list goes on after an empty line if what follows is indented or an item, which is seen only then
      if (lines.length && ITEM.test(lines[0])) lines.push(line); else end();
    } else {
      if (lines.length && ITEM.test(lines[0]) && !lines[lines.length - 1].trim() && !ITEM.test(line) && !/^\s/.test(line)) end();
      if (/^ {0,3}#{1,6}\s/.test(line) || RULE.test(line)) { end(); lines.push(line); end(); }
      else if (lines.length && ITEM.test(line) && !ITEM.test(lines[0]) && !/^\s/.test(line)) { end(); lines.push(line); }
      else lines.push(line);
    }
  }
  end();
  return found;
}

// One block as an element. `tools(code)` gives what stands beside code.
function block(source, tools, depth = 0) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return codeBlock(lines, fence, tools);
  if (MATH_BEGIN.test(lines[0])) return element("div", "nbllm-math nbllm-display", mathText(source.trim()));
  const heading = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(lines[0]);
  if (heading) return inline(element(`h${Math.min(6, heading[1].length + 2)}`, ""), heading[2]);
  if (RULE.test(lines[0]) && lines.length === 1) return element("hr", "");
  if (lines.every((line) => /^\s*>/.test(line))) {
    const quote = element("blockquote", "");
    const inner = lines.map((line) => line.replace(/^\s*> ?/, "")).join("\n");
    if (depth < DEEPEST) for (const each of blocks(inner)) quote.append(block(each, tools, depth + 1));
    else quote.append(inner);
    return quote;
  }
  if (ITEM.test(lines[0])) return list(lines, tools, depth);
  if (lines.length > 1 && lines[0].includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(lines[1]) && lines[1].includes("|")) return table(lines);
  const paragraph = element("p", "");
  lines.forEach((line, n) => {
    inline(paragraph, line.replace(/( {2,}|\\)$/, ""));
    if (n + 1 < lines.length) paragraph.append(/( {2,}|\\)$/.test(line) ? element("br", "") : "\n");
  });
  return paragraph;
}

function codeBlock(lines, fence, tools) {
  const closed = lines.length > 1 && FENCE.exec(lines[lines.length - 1])?.[1].startsWith(fence[1]);
  const code = lines.slice(1, closed ? -1 : undefined).join("\n");
  const language = fence[2].toLowerCase();
  const shown = element("code", "");
  highlight(shown, code, language);
  return element("div", "nbllm-code", element("div", "nbllm-code-bar", element("span", "", fence[2]), ...tools(code)), element("pre", "", shown));
}

function highlight(parent, code, language) {
  if (code.length > LONGEST_INLINE) { parent.append(code); return; }
  const comment = HASH.has(language) ? "#[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?\\*\\/|--[^\\n]*";
  const pattern = new RegExp(`(${comment})|("""[\\s\\S]*?"""|'''[\\s\\S]*?'''|"(?:\\\\.|[^"\\\\\\n])*"|'(?:\\\\.|[^'\\\\\\n])*')|(\\b\\d[\\w.]*)|([A-Za-z_]\\w*)`, "g");
  let at = 0;
  for (const match of code.matchAll(pattern)) {
    const kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "number" : KEYWORDS.has(match[4]) ? "keyword" : null;
    if (!kind) continue;
    parent.append(code.slice(at, match.index), element("span", `nbllm-${kind}`, match[0]));
    at = match.index + match[0].length;
  }
  parent.append(code.slice(at));
}

function list(lines, tools, depth) {
  const first = ITEM.exec(lines[0]);
  const made = element(first[2] ? "ul" : "ol", "");
  if (first[3] && first[3] !== "1") made.start = Number(first[3]);
  let item = null, inner = [];
  const end = () => {
    if (!item) return;
    if (depth >= DEEPEST) item.append(inner.join("\n"));
    else for (const each of blocks(inner.join("\n"))) {
      const node = block(each, tools, depth + 1);
      if (node.tagName === "P" && !item.childNodes.length) item.append(...node.childNodes); else item.append(node);
    }
    made.append(item);
  };
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (match && match[1].length <= first[1].length + 1) { end(); item = element("li", ""); inner = [match[4]]; }
    else inner.push(line.replace(/^\s{1,4}/, ""));
  }
  end();
  return made;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => element("tr", "", ...cells(line).map((cell) => inline(element(tag, ""), cell)));
  const body = element("tbody", "", ...lines.slice(2).map((line) => row(line, "td")));
  return element("div", "nbllm-table", element("table", "", element("thead", "", row(lines[0], "th")), body));
}

const INLINE = new RegExp([
  "\\\\([!-/:-@[-`{-~])", // 1: an escaped character
  "(`+)([^`][\\s\\S]*?)\\2(?!`)", // 2, 3: code
  "\\\\\\(([\\s\\S]+?)\\\\\\)|\\$(?!\\s)([^$\\n]+?)(?<!\\s)\\$(?!\\d)", // 4, 5: math
  "!\\[([^\\]\\n]*)\\]\\(([^()\\s]*(?:\\([^()\\s]*\\)[^()\\s]*)*)[^)\\n]*\\)", // 6, 7: an image
  "\\[([^\\]\\n]*)\\]\\(([^()\\s]*(?:\\([^()\\s]*\\)[^()\\s]*)*)[^)\\n]*\\)", // 8, 9: a link
  "<?(https?:\\/\\/[^\\s<>()\\[\\]]+[^\\s<>()\\[\\].,;:!?'\"])>?", // 10: an address
  "(\\*\\*|__)(?=\\S)([\\s\\S]*?\\S)\\11", // 11, 12: strong
  "~~(?=\\S)([\\s\\S]*?\\S)~~", // 13: struck out
  "\\*(?=[^\\s*])([\\s\\S]*?[^\\s*])\\*(?!\\*)", // 14: emphasis
  "(?<![\\w])_(?=[^\\s_])([\\s\\S]*?[^\\s_])_(?![\\w])", // 15: the same
].join("|"), "g");

function inline(parent, text, depth = 0) {
  if (text.length > LONGEST_INLINE || depth > DEEPEST) { parent.append(text); return parent; }
  let at = 0;
  for (const m of text.matchAll(INLINE)) {
    parent.append(text.slice(at, m.index));
    at = m.index + m[0].length;
    const inner = (tag, source) => inline(element(tag, ""), source, depth + 1);
    if (m[1] !== undefined) parent.append(m[1]);
    else if (m[3] !== undefined) parent.append(element("code", "", m[3].replace(/^ (.*) $/, "$1")));
    else if (m[4] !== undefined || m[5] !== undefined) parent.append(element("span", "nbllm-math", mathText(m[4] ?? m[5])));
    else if (m[7] !== undefined) parent.append(element("span", "nbllm-image", `[image, not loaded: ${m[6] || m[7]}]`));
    else if (m[9] !== undefined) parent.append(link(m[9], (node) => inline(node, m[8], depth + 1), m[0]));
    else if (m[10] !== undefined) parent.append(link(m[10], (node) => node.append(m[10]), m[0]));
    else if (m[12] !== undefined) parent.append(inner("strong", m[12]));
    else if (m[13] !== undefined) parent.append(inner("del", m[13]));
    else parent.append(inner("em", m[14] ?? m[15]));
  }
  parent.append(text.slice(at));
  return parent;
}

function link(address, fill, source) {
  let url = null;
  try { url = new URL(address); } catch { /* no address: it stays text */ }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return document.createTextNode(source);
  const node = element("a", "");
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer";
  node.title = url.href; // where it leads, whatever its text says
  fill(node);
  return node;
}

// TeX as people read it where nothing typesets it: the commonest commands become their characters.
const TEX = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", theta: "θ", lambda: "λ", mu: "μ", pi: "π", rho: "ρ", sigma: "σ",
  tau: "τ", phi: "φ", omega: "ω", Delta: "Δ", Sigma: "Σ", Omega: "Ω", sum: "∑", prod: "∏", int: "∫", infty: "∞", partial: "∂", nabla: "∇",
  cdot: "·", times: "×", div: "÷", pm: "±", leq: "≤", le: "≤", geq: "≥", ge: "≥", neq: "≠", ne: "≠", approx: "≈", to: "→", rightarrow: "→",
  in: "∈", forall: "∀", exists: "∃", sqrt: "√", ldots: "…", cdots: "⋯", quad: " ", left: "", right: "", text: "", mathrm: "", mathbf: "" };

function mathText(source) {
  return source.replace(/^(\$\$|\\\[)\s*|\s*(\$\$|\\\])$/g, "").replace(/\\frac\{([^{}]*)\}\{([^{}]*)\}/g, "($1)/($2)")
    .replace(/\\([A-Za-z]+)\s?/g, (whole, name) => TEX[name] ?? whole).replace(/\\[,;! ]/g, " ");
}
