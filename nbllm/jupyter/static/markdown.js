// Markdown as models write it, to elements. Text only ever becomes text nodes and attributes of elements made here,
// never markup, so nothing of a reply can run or be fetched; links are http(s) and mailto, and images are named, not
// loaded.

const LONGEST_INLINE = 20000; // characters; what is longer is shown as it is
const PIECE = 400; // characters of code that are made at once
const DEEPEST = 8; // emphasis within emphasis, lists within lists
const FENCE = /^ {0,3}(`{3,}|~{3,})[^\S\n]*([^\s`]*)[^\n`]*$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const CODE = "(?<!`)(?<ticks>`+)(?!`)(?<code>[^\\n]{1,2000}?)(?<!`)\\k<ticks>(?!`)";
const SQUARE = "\\\\\\[(?<square>[^]{1,2000}?)\\\\\\]", DISPLAY = "\\$\\$(?<display>[^$]{1,2000})\\$\\$";
const ENDED = new RegExp(`${CODE}|${SQUARE}|${DISPLAY}`, "g"); // what of a line begins no formula on several lines
const MOST_LINES = 60; // of one
const KEYWORDS = new Set((
  "and as assert async await break case catch class const continue def default del do elif else enum except export " +
  "extends false False finally fn for from function global if impl import in interface is lambda let loop match mod " +
  "mut new None nonlocal not null or pass print pub raise return self static struct super switch this throw true " +
  "True try type typeof undefined use var void while with yield"
).split(" "));
const HASH = new Set(["", "python", "py", "ipython", "python3", "sh", "bash", "shell", "r", "ruby", "yaml", "toml",
  "julia", "perl"]);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// The text in blocks, each the source of one element. The last may still grow.
function blocks(text) {
  const found = [], all = text.split("\n");
  let lines = [], fence = null, math = 0; // math: how many of the next lines are of a formula
  const end = () => { if (lines.some((line) => line.trim())) found.push(lines.join("\n")); lines = []; };
  all.forEach((line, n) => {
    const mark = FENCE.exec(line);
    if (fence) {
      lines.push(line);
      if (mark && mark[1].startsWith(fence) && !mark[2]) { fence = null; end(); }
    } else if (math) {
      lines.push(line);
      math -= 1;
    } else if (mark) {
      end(); lines.push(line); fence = mark[1];
    } else if (!line.trim()) {
      // a list goes on after an empty line if what follows is indented or an item, which is seen only then
      if (lines.length && ITEM.test(lines[0])) lines.push(line); else end();
    } else {
      if (lines.length && ITEM.test(lines[0]) && !lines[lines.length - 1].trim() && !ITEM.test(line)
        && !/^\s/.test(line)) end();
      if (/^ {0,3}#{1,6}\s/.test(line) || RULE.test(line)) { end(); lines.push(line); end(); return; }
      if (lines.length && ITEM.test(line) && !ITEM.test(lines[0]) && !/^\s/.test(line)) end();
      lines.push(line);
      math = formulaLines(all, n);
    }
  });
  end();
  return found;
}

// How many lines after this one belong to a formula that begins in it; none if it does not end before an empty line.
function formulaLines(lines, at) {
  if (lines[at].length > LONGEST_INLINE) return 0;
  const [begun] = /\\\[|\$\$/.exec(lines[at].replace(ENDED, "")) ?? [];
  const end = begun === "$$" ? "$$" : "\\]";
  for (let n = at + 1; begun && n <= at + MOST_LINES && lines[n]?.trim(); n += 1) {
    if (lines[n].includes(end)) return n - at;
  }
  return 0;
}

// What grows is made of parts, and those whose source is as before stay; the next one may be renewed in the same way.
const PARTS = new WeakMap(); // by the element they stand in: [{source, node}]
const KEYS = new WeakMap(); // what must stay the same of an element for its parts to be of use

function renew(parent, sources, make) {
  const parts = PARTS.get(parent) ?? [];
  let same = 0;
  while (same < parts.length && same < sources.length && parts[same].source === sources[same]) same += 1;
  const [first, ...rest] = parts.splice(same);
  for (const { node } of rest) node.remove();
  for (const source of sources.slice(same)) {
    const old = parts.length === same ? first?.node : null;
    const node = make(source, old);
    if (node !== old) parent.append(node);
    parts.push({ source, node });
  }
  if (first && parts[same]?.node !== first.node) first.node.remove();
  PARTS.set(parent, parts);
  return parent;
}

function reused(old, key, make) {
  if (old && KEYS.get(old) === key) return old;
  const made = make();
  KEYS.set(made, key);
  return made;
}

// One block as an element, which may be `old`, that of its source before. `tools(code)` gives what stands beside code.
function block(source, tools, depth = 0, old = null) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return codeBlock(lines, fence, tools, old);
  const heading = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(lines[0]);
  if (heading) return inline(element(`h${Math.min(6, heading[1].length + 2)}`, ""), heading[2]);
  if (RULE.test(lines[0]) && lines.length === 1) return element("hr", "");
  if (lines.every((line) => /^\s*>/.test(line))) {
    const quote = reused(old, "quote", () => element("blockquote", ""));
    return filled(quote, lines.map((line) => line.replace(/^\s*> ?/, "")).join("\n"), tools, depth);
  }
  if (ITEM.test(lines[0])) return list(lines, tools, depth, old);
  if (lines[0].includes("|") && /^(?=.*\|)[\s|:-]*-[\s|:-]*$/.test(lines[1] ?? "")) return table(lines, old);
  return inline(element("p", ""), source.trim());
}

// What stands in a quotation or an item.
function filled(parent, text, tools, depth) {
  if (depth < DEEPEST) return renew(parent, blocks(text), (source, old) => block(source, tools, depth + 1, old));
  parent.replaceChildren(text);
  return parent;
}

function codeBlock(lines, fence, tools, old) {
  const closed = lines.length > 1 && FENCE.exec(lines[lines.length - 1])?.[1].startsWith(fence[1]);
  const code = lines.slice(1, closed ? -1 : undefined).join("\n");
  const plain = code.length > LONGEST_INLINE, pattern = plain ? NOTHING : tokens(fence[2].toLowerCase());
  const made = reused(old, `code ${plain} ${fence[2]}`, () => {
    const shown = element("code", "");
    const bar = element("div", "nbllm-code-bar", element("span", "", fence[2]), ...tools(() => shown.textContent));
    return element("div", "nbllm-code", bar, element("pre", "", shown));
  });
  renew(made.querySelector("code"), pieces(code, pattern), (source) => highlight(source, pattern));
  return made;
}

const NOTHING = /$^/g;

// Comment, string, number or name in code of this language.
function tokens(language) {
  const comment = HASH.has(language) ? "#[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[^]*?\\*\\/|--[^\\n]*";
  const string = `"""[^]*?"""|'''[^]*?'''|"(?:\\\\.|[^"\\\\\\n])*"|'(?:\\\\.|[^'\\\\\\n])*'`;
  return new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>\\b\\d[\\w.]*)|(?<name>[A-Za-z_]\\w*)`, "g");
}

// Code in pieces of some lines, none of which ends within a comment or a string.
function pieces(code, pattern) {
  const inner = [...code.matchAll(pattern)].filter(([text]) => text.includes("\n"));
  const found = [];
  let from = 0;
  for (let end = code.indexOf("\n"); end >= 0; end = code.indexOf("\n", end + 1)) {
    while (inner.length && inner[0].index + inner[0][0].length <= end) inner.shift();
    if (end - from < PIECE || inner[0]?.index <= end) continue;
    found.push(code.slice(from, end + 1));
    from = end + 1;
  }
  return [...found, code.slice(from)];
}

function highlight(code, pattern) {
  const shown = element("span", "");
  let at = 0;
  for (const { 0: text, index, groups } of code.matchAll(pattern)) {
    const kind = ["comment", "string", "number"].find((name) => groups?.[name] !== undefined) ?? "keyword";
    if (kind === "keyword" && !KEYWORDS.has(text)) continue;
    shown.append(code.slice(at, index), element("span", `nbllm-${kind}`, text));
    at = index + text.length;
  }
  shown.append(code.slice(at));
  return shown;
}

function list(lines, tools, depth, old) {
  const first = ITEM.exec(lines[0]), start = first[3] ?? "";
  const made = reused(old, `list ${start}`, () => {
    const node = element(first[2] ? "ul" : "ol", "");
    if (start && start !== "1") node.start = Number(start);
    return node;
  });
  const items = [];
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (match && match[1].length <= first[1].length + 1) items.push([match[4]]);
    else items[items.length - 1].push(line.replace(/^\s{1,4}/, ""));
  }
  const make = (source, before) => filled(before ?? element("li", ""), source, tools, depth);
  return renew(made, items.map((inner) => inner.join("\n")), make);
}

function table(lines, old) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => element("tr", "", ...cells(line).map((cell) => inline(element(tag, ""), cell)));
  const made = reused(old, `table ${lines[0]}`, () => {
    const head = element("thead", "", row(lines[0], "th"));
    return element("div", "nbllm-table", element("table", "", head, element("tbody", "")));
  });
  renew(made.querySelector("tbody"), lines.slice(2), (line) => row(line, "td"));
  return made;
}

// What stands within a line. Mathematics is what a cell takes for it, too (jupyter/markdown.py).
const INLINE = new RegExp([
  CODE,
  "\\\\\\((?<round>[^\\n]{1,1000}?)\\\\\\)",
  SQUARE,
  DISPLAY,
  "\\$(?=[^\\s$])(?<dollars>[^$\\n]{1,1000})(?<![\\s\\\\])\\$(?!\\d)",
  "(?<end>\\\\|(?<! ) {2,})\\n",
  "\\\\(?<escaped>[!-/:-@[-`{-~])",
  "(?<image>!)?\\[(?<label>[^\\]\\n]*)\\]\\((?<target>[^()\\s]*(?:\\([^()\\s]*\\)[^()\\s]*)*)[^)\\n]*\\)",
  "<?(?<address>https?:\\/\\/[^\\s<>()\\[\\]]+[^\\s<>()\\[\\].,;:!?'\"])>?",
  "(?<stars>\\*\\*|__)(?=\\S)(?<strong>[^]*?\\S)\\k<stars>",
  "~~(?=\\S)(?<del>[^]*?\\S)~~",
  "\\*(?=[^\\s*])(?<em>[^]*?[^\\s*])\\*(?!\\*)",
  "(?<!\\w)_(?=[^\\s_])(?<low>[^]*?[^\\s_])_(?!\\w)",
].join("|"), "g");

const within = (tag, source, depth) => inline(element(tag, ""), source, depth);
const MADE = { // of what was found, how deep it stands, and all that it was found in
  code: (code) => element("code", "", code.replace(/^ (.*) $/, "$1")),
  round: (source) => mathematics(source, false),
  square: (source) => mathematics(source, true),
  display: (source) => mathematics(source, true),
  dollars: (source) => mathematics(source, false),
  end: () => element("br", ""),
  escaped: (character) => character,
  image: (mark, depth, { groups: { label, target } }) =>
    element("span", "nbllm-image", `[image, not loaded: ${label || target}]`),
  target: (address, depth, match) => link(address, (node) => inline(node, match.groups.label, depth), match[0]),
  address: (address, depth, match) => link(address, (node) => node.append(address), match[0]),
  strong: (source, depth) => within("strong", source, depth),
  del: (source, depth) => within("del", source, depth),
  em: (source, depth) => within("em", source, depth),
  low: (source, depth) => within("em", source, depth),
};

function inline(parent, text, depth = 0) {
  if (text.length > LONGEST_INLINE || depth > DEEPEST) { parent.append(text); return parent; }
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const kind = Object.keys(MADE).find((name) => match.groups[name] !== undefined);
    parent.append(text.slice(at, match.index), MADE[kind](match.groups[kind], depth + 1, match));
    at = match.index + match[0].length;
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
