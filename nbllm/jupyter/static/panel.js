// The chat panel in the browser: shows what the Jupyter kernel tells, and tells it what the user does.
// Knows nothing of models.

const AT_BOTTOM = 40; // pixels from the end within which the view follows what is written
const PATIENCE = 300; // milliseconds until the user is told that the Jupyter kernel has not heard yet
const BUSY = "Waiting for the Jupyter kernel, which is busy: it takes this up when the running cell has ended.";
const STOPPING = "To be stopped: waiting for the Jupyter kernel, which is busy, until the running cell has ended.";

function render({ model, el }) {
  const root = element("section", "nbllm-panel");
  root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys that are typed here
  root.dataset.jpSuppressContextMenu = "true";
  root.setAttribute("aria-label", "Chat with the local model");
  const view = Math.random().toString(36).slice(2); // several views of the panel may ask
  let untaken = []; // what was asked and has not reached the Jupyter kernel yet
  const ask = (kind, content = {}) => {
    const asked = { kind };
    untaken.push(asked);
    setTimeout(() => { if (untaken.includes(asked)) wait(); }, PATIENCE);
    model.send({ kind, view, ...content });
  };
  const button = (text, label, run) => {
    const made = element("button", "", text);
    made.type = "button";
    made.title = label;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", run);
    return made;
  };

  // ---- what there is to see
  const name = element("span", "nbllm-name", "");
  const count = element("span", "nbllm-count", "");
  const models = element("select", "nbllm-models");
  models.setAttribute("aria-label", "Model");
  models.addEventListener("change", () => ask("model", { name: models.value }));
  const file = element("input", "nbllm-file");
  file.placeholder = "conversation.jsonl";
  file.setAttribute("aria-label", "File of a conversation");
  const settings = element("div", "nbllm-settings");
  const more = element("details", "nbllm-more", element("summary", "", "Settings"), settings,
    element("div", "nbllm-row", file,
      button("Save", "Save the conversation in this file", () => ask("save", { path: file.value || file.placeholder })),
      button("Load", "Go on with the conversation in this file",
        () => ask("load", { path: file.value || file.placeholder }))));
  const log = element("div", "nbllm-log");
  log.setAttribute("role", "log");
  log.setAttribute("aria-live", "polite");
  log.tabIndex = 0;
  const latest = button("↓ Latest", "Scroll to what is written", () => { log.scrollTop = log.scrollHeight; });
  latest.className = "nbllm-latest";
  const state = element("div", "nbllm-state");
  state.setAttribute("role", "status");
  const waits = element("div", "nbllm-waits");
  waits.setAttribute("role", "status");
  const wait = () => {
    const why = untaken.some(({ kind }) => kind === "stop") ? STOPPING : BUSY;
    waits.textContent = untaken.length ? why : "";
  };
  const input = element("textarea", "nbllm-input");
  input.rows = 2;
  input.placeholder = "Write to the model. Enter sends, Shift+Enter begins a new line.";
  input.setAttribute("aria-label", "Message to the model");
  const send = button("Send", "Send the message (Enter)", () => (busy ? ask("stop") : submit()));
  send.classList.add("nbllm-send");
  const undo = button("Undo", "Take back the last exchange", () => ask("undo"));
  const retry = button("Retry", "Ask the last question again", () => ask("rerun"));
  const clear = button("New", "Start a new conversation; this one is kept", () => ask("clear"));
  root.append(element("div", "nbllm-head", name, models, count), more, log, latest, waits, state,
    element("div", "nbllm-row", input, send), element("div", "nbllm-row nbllm-tools", retry, undo, clear));
  el.append(root);

  // ---- messages
  let shown = []; // {role, text, think, node}
  // the reply that is being written: {question node, node, text, think, body, thought, notices, footer}
  let pending = null;
  let busy = false;

  const following = () => log.scrollHeight - log.scrollTop - log.clientHeight < AT_BOTTOM;
  const keepBottom = (change) => {
    const follow = following();
    change();
    if (follow) log.scrollTop = log.scrollHeight;
    latest.hidden = following();
  };
  log.addEventListener("scroll", () => { latest.hidden = following(); });

  const copy = (text, from) => navigator.clipboard?.writeText(text)
    .then(() => say("Copied."), () => say("The browser does not allow copying here."))
    ?? say("The browser does not allow copying here.");
  const tools = (code) => [
    button("Copy", "Copy this code", () => copy(code())),
    button("Insert", "Put this code into a new cell below", () => insert(code())),
  ];

  // JupyterLab and Notebook give a widget's manager the notebook's document,
  // in which a cell can be made; others do not.
  function insert(code) {
    const notebook = model.widget_manager?.context?.model?.sharedModel;
    if (!notebook?.insertCell) {
      copy(code);
      say("Copied; this front end makes no cells for widgets, so paste it into one.");
      return;
    }
    const cell = el.closest(".jp-Cell") ?? document.querySelector(".jp-Notebook .jp-Cell.jp-mod-active");
    const all = [...(cell?.parentElement?.querySelectorAll(":scope > .jp-Cell") ?? [])];
    const at = Number(cell?.dataset.windowedListIndex ?? all.indexOf(cell));
    notebook.insertCell(Number.isInteger(at) && at >= 0 ? at + 1 : notebook.cells.length,
      { cell_type: "code", source: code, metadata: {} });
    say("Put into a new cell below; nothing was run.");
  }

  const growing = (parent) => (text) => renew(parent, blocks(text), (source, old) => block(source, tools, 0, old));

  function thoughtOf(parent, open) {
    const body = element("div", "nbllm-thought");
    const folded = element("details", "nbllm-think", element("summary", "", "Thought"), body);
    folded.open = open;
    parent.append(folded);
    return { folded, show: growing(body) };
  }

  function question(text, number) {
    const node = element("div", "nbllm-message nbllm-user", element("div", "nbllm-text", text));
    const edit = button("Edit", "Ask this in other words, in a copy of the conversation", () => {
      const area = element("textarea", "nbllm-input");
      area.value = text;
      area.setAttribute("aria-label", "The question in other words");
      const done = () => { node.replaceChildren(...kept); edit.focus(); };
      const again = () => { done(); ask("edit", { number, text: area.value }); };
      area.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); again(); }
        if (event.key === "Escape") { event.stopPropagation(); done(); }
      });
      const kept = [...node.childNodes];
      node.replaceChildren(area, element("div", "nbllm-row",
        button("Send", "Ask it so", again), button("Cancel", "Leave it as it is", done)));
      area.focus();
    });
    edit.className = "nbllm-edit";
    node.append(element("div", "nbllm-tools", edit, button("Copy", "Copy this question", () => copy(text))));
    return node;
  }

  function reply(message) {
    const node = element("div", "nbllm-message nbllm-model");
    if (message.think) thoughtOf(node, false).show(message.think);
    const body = element("div", "nbllm-text");
    growing(body)(message.text);
    const footer = element("div", "nbllm-footer", message.footer ?? "");
    node.append(body, footer,
      element("div", "nbllm-tools", button("Copy", "Copy this reply", () => copy(message.text))));
    return node;
  }

  function showAll(from, messages) {
    const all = [...shown.slice(0, from).map(({ node, ...message }) => message), ...messages];
    const done = pending?.done ? pending : null;
    all.forEach((message, n) => {
      const old = shown[n];
      if (old && old.role === message.role && old.text === message.text) return;
      if (done && n === all.length - 1 && message.text === done.text) message.footer = done.footer.textContent;
      const node = message.role === "user" ? question(message.text, n / 2) : reply(message);
      if (old) old.node.replaceWith(node); else log.insertBefore(node, pending?.asked ?? null);
      shown[n] = { ...message, node };
    });
    for (const { node } of shown.splice(all.length)) node.remove();
    if (done) drop();
    allow();
  }

  // waiting : for other jobs; null if it is not known yet
  function begin(text, again, waiting) {
    drop();
    if (again && shown.length) for (const { node } of shown.slice(-2)) node.hidden = true;
    const asked = question(text, shown.length / 2 - (again ? 1 : 0));
    asked.querySelector(".nbllm-tools").remove();
    const node = element("div", "nbllm-message nbllm-model");
    const notices = element("div", "nbllm-notices"), body = element("div", "nbllm-text"),
      footer = element("div", "nbllm-footer");
    node.append(notices, body, footer);
    log.append(asked, node);
    pending = { asked, node, notices, body, footer, text: "", think: "", show: growing(body), thought: null,
      done: false };
    busyNow(true, waiting === null ? "" : waiting ? "waiting for what was asked before" : "waiting for the model");
    log.classList.remove("nbllm-empty");
  }

  function drop() {
    pending?.asked.remove();
    pending?.node.remove();
    pending = null;
    for (const { node } of shown) node.hidden = false;
  }

  function grow(told) {
    told = { text: "", think: "", notices: [], status: "", share: null, footer: "", done: false, ...told };
    if (!pending || pending.done) { tell(told); return; }
    for (const notice of told.notices) pending.notices.append(element("p", "", notice));
    if (told.think) {
      pending.think += told.think;
      if (!pending.thought) {
        pending.thought = thoughtOf(pending.node, true);
        pending.node.insertBefore(pending.thought.folded, pending.body);
      }
      pending.thought.show(pending.think);
    }
    if (told.text) {
      if (!pending.text && pending.thought) pending.thought.folded.open = false;
      pending.text += told.text;
      pending.show(pending.text);
    }
    pending.footer.textContent = told.footer;
    pending.done = told.done;
    busyNow(!told.done, told.done ? "" : told.status, told.share);
  }

  // What a job says that is no reply: a model that is loaded, a conversation that was saved.
  let said = "";
  function tell(told) {
    if (told.notices.length) said = told.notices.join(" ");
    busyNow(!told.done, told.done ? said : told.status, told.share); // what it said stays to be read
    if (told.done) said = "";
  }

  // What changes the conversation waits for the end of a reply.
  function allow() {
    clear.disabled = busy;
    retry.disabled = undo.disabled = busy || !shown.length;
    root.classList.toggle("nbllm-busy", busy); // questions cannot be edited then
  }

  function busyNow(now, text, share = null) {
    busy = now;
    state.classList.remove("nbllm-error");
    allow();
    send.textContent = now ? "Stop" : "Send";
    send.title = now ? "Stop (Escape); what was written is kept" : "Send the message (Enter)";
    send.setAttribute("aria-label", send.title);
    send.classList.toggle("nbllm-stop", now);
    state.replaceChildren();
    if (text) state.append(text.replace(/: \d+%$/, ""));
    if (now && share !== null) {
      const bar = element("progress", "");
      bar.max = 1;
      bar.value = share;
      bar.setAttribute("aria-label", text);
      state.append(bar);
    }
  }

  function say(text, wrong = false) {
    state.replaceChildren(text);
    state.classList.toggle("nbllm-error", wrong);
  }

  const fields = {};
  function control(key, value, help) {
    if (fields[key]) { // a field that is being filled in stays as it is
      if (!fields[key].matches(":focus")) fields[key].value = value ?? "";
      return;
    }
    const field = fields[key] = element("input", "");
    field.value = value ?? "";
    field.title = help ?? "";
    const number = key !== "system";
    if (number) { field.type = "number"; field.step = key === "max_tokens" ? 1 : 0.05; field.min = 0; }
    field.addEventListener("change", () => ask("set",
      { name: key, value: number ? (field.value === "" ? null : Number(field.value)) : field.value }));
    settings.append(element("label", "", key.replace("_", " "), field));
  }

  function head(told) {
    name.textContent = told.conversation === "1" ? "Chat" : `Chat: ${told.conversation}`;
    const { used, of } = told.context;
    count.textContent = of ? `${(used ?? 0).toLocaleString()} of ${of.toLocaleString()} tokens` : "";
    if (told.models) models.replaceChildren(...told.models.map((each) => new Option(each, each)));
    if (told.model && ![...models.options].some((option) => option.value === told.model))
      models.prepend(new Option(told.model, told.model));
    if (told.model) models.value = told.model;
    for (const [key, value] of Object.entries(told.settings)) control(key, value, told.help?.[key]);
  }

  const heard = {
    head,
    all: (told) => {
      head(told);
      showAll(told.from ?? 0, told.messages);
      if (told.pending) { begin(told.pending.question, told.pending.again, false); grow(told.pending); }
      log.classList.toggle("nbllm-empty", !shown.length && !pending);
    },
    begin: (told) => { begin(told.question, told.again, told.waiting); state.classList.remove("nbllm-error"); },
    reply: grow,
    error: (told) => {
      if (told.ended) {
        if (pending && !pending.text && !pending.think) drop();
        log.classList.toggle("nbllm-empty", !shown.length && !pending);
        busyNow(false, "");
        input.value ||= told.draft ?? "";
      }
      say(told.text, told.wrong);
    },
  };
  // Messages are numbered. Who missed one, or has come in the middle, asks for all,
  // and heeds nothing before that has come.
  let heeded = null;
  const listen = (told) => {
    if (told.kind === "taken") {
      if (told.view === view) untaken.shift();
      wait();
      return;
    }
    if (told.whole) heeded = told.number;
    else if (heeded === null) return;
    else if (told.number !== heeded + 1) { heeded = null; ask("hello"); return; }
    heeded = told.number;
    keepBottom(() => heard[told.kind]?.(told));
  };
  model.on("msg:custom", listen);

  // ---- what the user does
  function submit() {
    const text = input.value;
    if (!text.trim()) return;
    input.value = "";
    begin(text, false, null); // Stop is there from this moment
    log.scrollTop = log.scrollHeight;
    ask("send", { text });
  }
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!busy) submit();
    } else if (event.key === "ArrowUp" && !input.value && shown.length) {
      event.preventDefault();
      input.value = shown[shown.length - 2].text;
    }
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && busy) ask("stop");
    event.stopPropagation(); // these keys are not the notebook's
  });
  ask("hello");
  return () => model.off("msg:custom", listen);
}

export default { render };
