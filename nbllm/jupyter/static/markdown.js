// Markdown as models write it, to elements. Text only ever becomes text nodes and attributes of elements made here, never
// markup, so nothing of a reply can run or be fetched; links are http(s) and mailto, and images are named, not loaded.

const LONGEST_INLINE = 20000; // characters; what is longer is shown as it is
const DEEPEST = 8; // emphasis within emphasis, lists within lists
const FENCE = /^ {0,3}(`{3,}|~{3,})[^\S\n]*([^\s`]*)[^\n`]*$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const CODE = "(?<!`)(?<ticks>`+)(?!`)(?<code>[^\\n]{1,2000}?)(?<!`)\\k<ticks>(?!`)";
const SQUARE = "\\\\\\[(?<square>[^]{1,2000}?)\\\\\\]", DISPLAY = "\\$\\$(?<display>[^$]{1,2000})\\$\\$";
const ENDED = new RegExp(`${CODE}|${SQUARE}|${DISPLAY}`, "g"); // what of a line begins no formula on several lines
const MOST_LINES = 60; // of one
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
      if (lines.length && ITEM.test(lines[0]) && !lines[lines.length - 1].trim() && !ITEM.test(line) && !/^\s/.test(line)) end();
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
  for (let n = at + 1; begun && n <= at + MOST_LINES && lines[n]?.trim(); n += 1) if (lines[n].includes(end)) return n - at;
  return 0;
}

// One block as an element. `tools(code)` gives what stands beside code.
function block(source, tools, depth = 0) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return codeBlock(lines, fence, tools);
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
  return inline(element("p", ""), source.trim());
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
  image: (mark, depth, { groups }) => element("span", "nbllm-image", `[image, not loaded: ${groups.label || groups.target}]`),
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
