"use strict";

// The sandbox's inbox. Whatever comes from the gateway is shown through textContent only.

const PAGE = 50;
const CALLS_SHOWN = 200;
const FILES_LIMIT = 24 * 1024 * 1024;
const SWITCHES = [
  ["latency_ms", "Latency", [[0, "none"], [100, "100 ms"], [500, "0.5 s"], [2000, "2 s"], [10000, "10 s"]]],
  ["server_error", "502 from the edge", "rate"],
  ["drop_before", "Connection dropped before the work", "rate"],
  ["drop_after", "Connection dropped after the work", "rate"],
  ["broken_json", "Truncated JSON", "rate"],
  ["too_many", "429 storm", "rate"],
  ["html_403", "403 with HTML", "switch"],
  ["gone", "Endpoints gone", [["", "no"], [404, "404"], [410, "410"]]],
  ["unauthorized", "Token refused", "switch"],
  ["admin_only", "User is no admin", "switch"],
  ["budget_empty", "Daily budget spent", "switch"],
  ["oauth_down", "OAuth server down", "switch"],
  ["oauth_drop_after", "Token answer lost", "switch"],
];
const RATES = [[0, "never"], [0.1, "10 %"], [0.3, "30 %"], [0.5, "50 %"], [1, "always"]];

const $ = (id) => document.getElementById(id);
let open = null; // {channel, id}
let limit = PAGE;
let lastCall = 0;
let violationsShown = -1;
let chosen = []; // files of the answer being written
const rows = new Map();

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch("/sandbox/" + path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || "error " + response.status);
  return answer;
}

const query = (values) => new URLSearchParams(values).toString();

function when(text) {
  const time = new Date(/Z|[+-]\d\d:\d\d$/.test(text) ? text : text.replace(" ", "T") + "Z");
  return Number.isNaN(time.getTime()) ? null : time;
}

const clock = (time) => time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const day = (time) => time.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short", year: "numeric" });

function shortTime(text) {
  const time = when(text);
  if (!time) return "";
  return time.toDateString() === new Date().toDateString()
    ? clock(time)
    : time.toLocaleDateString([], { day: "numeric", month: "short" });
}

function nameOf(conversation) {
  const people = conversation.participants.filter((p) => p.role === "end_user").map((p) => p.name);
  return people.join(", ") || conversation.id;
}

function paintAvatar(element, conversation) {
  const name = nameOf(conversation);
  const letters = name.match(/\p{L}+/gu);
  element.textContent = letters
    ? letters.slice(0, 2).map((word) => word[0].toUpperCase()).join("")
    : name.replace(/\D/g, "").slice(-2);
  let sum = 0;
  for (const character of conversation.id) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  element.className = "avatar c" + (sum % 6);
}

// ---- list of conversations

function showList(summary) {
  const list = $("conversations");
  const focused = document.activeElement;
  $("no-conversations").hidden = summary.list.length > 0;
  const wanted = new Set();
  summary.list.forEach((conversation, index) => {
    const key = conversation.channel + " " + conversation.id;
    wanted.add(key);
    let item = rows.get(key);
    if (!item) {
      item = makeRow();
      item.button.addEventListener("click", () => choose(conversation.channel, conversation.id));
      rows.set(key, item);
    }
    paintRow(item, conversation);
    if (list.children[index] !== item.element) list.insertBefore(item.element, list.children[index] || null);
  });
  for (const [key, item] of rows) {
    if (!wanted.has(key)) {
      item.element.remove();
      rows.delete(key);
    }
  }
  if (focused && focused !== document.activeElement && list.contains(focused)) focused.focus();
}

function makeRow() {
  const element = make("li");
  const button = make("button");
  button.type = "button";
  const parts = {
    avatar: make("span", "avatar"), name: make("span", "name"), time: make("span", "time"),
    last: make("span", "last"), badge: make("span", "badge"),
  };
  parts.avatar.setAttribute("aria-hidden", "true");
  button.append(parts.avatar, parts.name, parts.time, parts.last, parts.badge);
  element.append(button);
  return { element, button, ...parts };
}

function paintRow(item, conversation) {
  paintAvatar(item.avatar, conversation);
  item.name.textContent = nameOf(conversation);
  const last = conversation.last;
  item.time.textContent = last ? shortTime(last.created_at) : "";
  item.last.textContent = last ? (last.outgoing ? "You: " : "") + last.text : "no messages";
  const isOpen = open && open.channel === conversation.channel && open.id === conversation.id;
  const unread = isOpen ? 0 : conversation.unread;
  item.badge.textContent = unread;
  item.badge.hidden = unread === 0;
  item.badge.setAttribute("aria-label", unread + " unread");
  item.element.className = unread ? "unread" : "";
  item.button.setAttribute("aria-current", isOpen ? "true" : "false");
  item.button.title = conversation.channel_name + " · " + conversation.id;
}

function moveInList(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const buttons = [...$("conversations").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  const next = buttons[at + step];
  if (next) next.focus();
}

// ---- one conversation

function choose(channel, id) {
  const same = open && open.channel === channel && open.id === id;
  open = { channel, id };
  document.body.dataset.view = "thread";
  if (!same) {
    limit = PAGE;
    setFiles([]);
    problem("");
    $("text").value = "";
    $("messages").replaceChildren();
    $("messages").dataset.key = "";
  }
  refresh();
  // What is hidden takes no focus.
  $("reply").hidden = false;
  if (matchMedia("(min-width: 681px)").matches) $("text").focus();
}

async function showThread() {
  if (!open) return;
  const at = open;
  let conversation;
  try {
    conversation = await ask("GET", "conversation?" + query({ channel: at.channel, conversation: at.id, limit }));
  } catch (error) {
    if (open === at) closeThread("This conversation is no longer here.");
    return;
  }
  if (open !== at) return;
  $("who").hidden = false;
  $("reply").hidden = false;
  $("who-name").textContent = nameOf(conversation);
  paintAvatar($("who-avatar"), conversation);
  const state = conversation.status === "closed" ? " · closed" : "";
  $("who-detail").textContent = conversation.channel + state;
  paintMessages(conversation);
}

function closeThread(text) {
  open = null;
  document.body.dataset.view = "list";
  $("who").hidden = true;
  $("reply").hidden = true;
  $("messages").dataset.key = "";
  $("messages").replaceChildren(make("p", "empty", text));
}

function paintMessages(conversation) {
  const box = $("messages");
  const content = JSON.stringify([conversation.id, conversation.older, conversation.messages]);
  if (box.dataset.key === content) return;
  const first = box.dataset.key === "";
  box.dataset.key = content;
  const atEnd = first || box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  const fromEnd = box.scrollHeight - box.scrollTop;
  const parts = [];
  if (conversation.older > 0) {
    const button = make("button", "quiet earlier", conversation.older + " earlier messages");
    button.type = "button";
    button.addEventListener("click", () => {
      limit += PAGE;
      box.focus({ preventScroll: true });
      showThread();
    });
    parts.push(button);
  }
  let lastDay = "";
  for (const message of conversation.messages) {
    const time = when(message.created_at);
    const name = time ? day(time) : "";
    if (name !== lastDay) parts.push(make("p", "day", name));
    lastDay = name;
    parts.push(messageElement(conversation, message, time));
  }
  box.replaceChildren(...parts);
  box.scrollTop = atEnd ? box.scrollHeight : box.scrollHeight - fromEnd;
}

function messageElement(conversation, message, time) {
  const element = make("article", message.outgoing ? "message mine" : "message");
  const bubble = make("div", "bubble");
  linked(bubble, message.text);
  for (const file of message.attachments || []) bubble.append(fileElement(conversation, message, file));
  const foot = make("p", "foot");
  const people = conversation.participants.filter((p) => p.role === "end_user");
  const writer = conversation.participants.find((p) => p.id === message.sender_id);
  if (!message.outgoing && people.length > 1 && writer) foot.append(make("span", "", writer.name));
  foot.append(make("span", "", time ? clock(time) : message.created_at));
  if (message.outgoing) foot.append(statusElement(message.status));
  if (message.posts > 1 && !message.outgoing) foot.append(make("span", "", "posted " + message.posts + " times"));
  element.append(bubble, foot);
  element.title = message.id;
  return element;
}

function statusElement(status) {
  const element = make("span", "status " + status);
  if (status !== "failed") {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 22 14");
    svg.setAttribute("aria-hidden", "true");
    const ticks = status === "sent" ? ["M5 8l4 4 8-10"] : ["M1 8l4 4 8-10", "M9 11l1 1 8-10"];
    for (const line of ticks) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", line);
      svg.append(path);
    }
    element.append(svg);
  }
  element.append(make("span", "", status));
  return element;
}

// Text with its http links made clickable.
function linked(parent, text) {
  for (const part of text.split(/(https?:\/\/[^\s<>"]+)/)) {
    if (/^https?:\/\//.test(part)) {
      const link = make("a", "", part);
      link.href = part;
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      parent.append(link);
    } else if (part) {
      parent.append(document.createTextNode(part));
    }
  }
}

function fileElement(conversation, message, file) {
  const name = file.name || "file";
  const size = typeof file.size === "number" ? bytes(file.size) : "";
  if (file.uploaded) {
    const sent = make("span", "file", name);
    sent.append(make("span", "", size));
    return sent;
  }
  const source = "/sandbox/file?" + query({ channel: conversation.channel, message: message.id, attachment: file.id });
  if (/^image\/(png|jpeg|gif|webp)$/.test(file.type)) {
    const picture = make("img");
    picture.src = source;
    picture.alt = name;
    picture.loading = "lazy";
    return picture;
  }
  const link = make("a", "file", name);
  link.href = source;
  link.download = name;
  link.append(make("span", "", size));
  return link;
}

function bytes(count) {
  if (count < 1024) return count + " B";
  return count < 1024 * 1024 ? Math.round(count / 1024) + " kB" : (count / 1024 / 1024).toFixed(1) + " MB";
}

// ---- answering

function setFiles(files) {
  chosen = files;
  $("file").value = "";
  $("files").replaceChildren(...files.map((file) => {
    const item = make("li", "", file.name + " (" + bytes(file.size) + ")");
    const remove = make("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", "Remove " + file.name);
    remove.addEventListener("click", () => {
      setFiles(chosen.filter((other) => other !== file));
      $("file").focus();
    });
    item.append(remove);
    return item;
  }));
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function readBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(new Error("cannot read " + file.name));
    reader.readAsDataURL(file);
  });
}

async function send(event) {
  event.preventDefault();
  const text = $("text").value;
  if (!open || $("send").disabled || (!text.trim() && chosen.length === 0)) return;
  if (chosen.reduce((sum, file) => sum + file.size, 0) > FILES_LIMIT) {
    problem("The files are too large for this page (" + bytes(FILES_LIMIT) + " together).");
    return;
  }
  const at = open;
  $("send").disabled = true;
  problem("");
  try {
    const files = await Promise.all(chosen.map(async (file) => ({
      name: file.name, type: file.type || "application/octet-stream", base64: await readBase64(file),
    })));
    await ask("POST", "reply", { channel: at.channel, conversation: at.id, text, files });
    if (open === at) {
      $("text").value = "";
      setFiles([]);
      $("messages").dataset.key = "";
      if (matchMedia("(min-width: 681px)").matches) $("text").focus();
    }
  } catch (error) {
    problem("The gateway did not take it: " + error.message);
  }
  $("send").disabled = false;
  refresh();
}

// ---- calls, faults, violations

async function showCalls() {
  const answer = await ask("GET", "calls?after=" + lastCall);
  const list = $("calls");
  const news = answer.calls.slice(-CALLS_SHOWN);
  for (const call of news) list.prepend(callElement(call));
  if (answer.calls.length) lastCall = answer.calls[answer.calls.length - 1].number;
  while (list.children.length > CALLS_SHOWN) list.lastElementChild.remove();
  $("no-calls").hidden = list.children.length > 0;
}

function callElement(call) {
  const item = make("li");
  const details = make("details");
  const summary = make("summary");
  const incoming = call.direction === "to pipedrive";
  const toward = make("span", "toward", incoming ? "→" : "←");
  toward.title = incoming ? "gateway calls Pipedrive" : "Pipedrive calls the gateway";
  toward.setAttribute("aria-label", toward.title);
  const verdict = make("span", "verdict " + call.verdict, call.status || "–");
  verdict.title = call.verdict;
  verdict.setAttribute("aria-label", (call.status || "no answer") + ", " + call.verdict);
  const what = make("span", "what", call.request.replace(/ \/api\/(v1\/)?(channels\/)?/, " "));
  what.title = call.request;
  summary.append(toward, what, make("span", "took", call.milliseconds + " ms"), verdict);
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const more = make("div", "more");
    more.append(make("p", "", call.at + " · " + call.verdict + (call.detail ? " · " + call.detail : "")));
    if (call.sent) more.append(make("pre", "", pretty(call.sent)));
    if (call.answered) more.append(make("pre", "", pretty(call.answered)));
    details.append(more);
  });
  item.append(details);
  return item;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

async function showViolations(count) {
  $("violation-count").textContent = count;
  $("violation-count").hidden = count === 0;
  $("tab-violations").textContent = count ? "Violations (" + count + ")" : "Violations";
  if (count === violationsShown) return;
  violationsShown = count;
  const answer = await ask("GET", "violations");
  const items = answer.violations.slice(-100).reverse().map((violation) => {
    const item = make("li", "", violation.what);
    item.prepend(make("span", "call", shortTime(violation.at) + " · " + violation.call));
    return item;
  });
  $("violations").replaceChildren(...items);
  $("no-violations").hidden = items.length > 0;
}

function makeFaults() {
  for (const [name, words, kind] of SWITCHES) {
    const label = make("label");
    label.append(make("span", "", words));
    let input;
    if (kind === "switch") {
      input = make("input");
      input.type = "checkbox";
    } else {
      input = make("select");
      for (const [value, text] of kind === "rate" ? RATES : kind) {
        const option = make("option", "", text);
        option.value = value;
        input.append(option);
      }
    }
    input.name = name;
    input.addEventListener("change", () => {
      const value = kind === "switch" ? input.checked : input.value === "" ? null : Number(input.value);
      setFaults({ [name]: value });
    });
    label.append(input);
    $("faults").append(label);
  }
}

async function setFaults(change) {
  paintFaults(await ask("POST", "faults", change));
}

function paintFaults(faults) {
  for (const [name, , kind] of SWITCHES) {
    const input = $("faults").elements[name];
    const value = faults[name];
    if (kind === "switch") {
      input.checked = value;
    } else {
      const text = value === null ? "" : String(value);
      if (![...input.options].some((option) => option.value === text)) {
        const option = make("option", "", text);
        option.value = text;
        input.append(option);
      }
      if (document.activeElement !== input) input.value = text;
    }
    input.parentElement.className = value ? "active" : "";
  }
}

function allOff() {
  const off = { only_next: null };
  for (const [name, , kind] of SWITCHES) off[name] = kind === "switch" ? false : name === "gone" ? null : 0;
  setFaults(off);
}

function chooseTab(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const on = other === tab;
    other.setAttribute("aria-selected", on ? "true" : "false");
    other.tabIndex = on ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !on;
  }
}

function moveTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...document.querySelectorAll("[role=tab]:not([hidden])")];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  chooseTab(next);
  next.focus();
}

function togglePanel(show) {
  $("panel").classList.toggle("open", show);
  $("toggle-panel").setAttribute("aria-expanded", show ? "true" : "false");
  (show ? $("tab-calls") : $("toggle-panel")).focus();
}

// ---- keeping up

let running = false;
let again = false;

async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  do {
    again = false;
    try {
      const summary = await ask("GET", "summary");
      const numbers = summary.counters;
      const plural = (count, word) => count.toLocaleString() + " " + word + (count === 1 ? "" : "s");
      const budget = summary.limits.daily_tokens
        ? " · " + (summary.limits.daily_tokens - summary.tokens_spent).toLocaleString() + " tokens left today" : "";
      $("numbers").textContent = plural(summary.conversations, "conversation") + " · " +
        plural(summary.messages, "message") + " · " + plural(numbers.calls, "call") + budget;
      showList(summary);
      paintFaults(summary.faults);
      await window.showApp(summary.oauth);
      const row = open && summary.list.find((c) => c.channel === open.channel && c.id === open.id);
      if (row && row.unread && document.visibilityState === "visible") {
        await ask("POST", "seen", { channel: open.channel, conversation: open.id });
      }
      await showThread();
      await showCalls();
      await showViolations(numbers.violations);
    } catch (error) {
      console.warn(error);
    }
  } while (again);
  running = false;
}

function listen() {
  const source = new EventSource("/sandbox/events");
  const say = (on) => {
    $("live").textContent = on ? "live" : "reconnecting…";
    $("live").classList.toggle("on", on);
  };
  source.onopen = () => say(true);
  source.onerror = () => say(false);
  source.onmessage = () => refresh();
}

$("conversations").addEventListener("keydown", moveInList);
$("reply").addEventListener("submit", send);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
$("file").addEventListener("change", () => setFiles([...chosen, ...$("file").files]));
$("back").addEventListener("click", () => {
  const row = open && rows.get(open.channel + " " + open.id);
  closeThread("Choose a conversation.");
  if (row) row.button.focus();
  refresh();
});
$("toggle-panel").addEventListener("click", () => togglePanel(!$("panel").classList.contains("open")));
$("close-panel").addEventListener("click", () => togglePanel(false));
$("faults-off").addEventListener("click", allOff);
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => chooseTab(tab));
  tab.addEventListener("keydown", moveTabs);
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("panel").classList.contains("open")) togglePanel(false);
});
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") refresh(); });
makeFaults();
// The address may name what is opened: #channel=…&conversation=…
const from = new URLSearchParams(location.hash.slice(1));
if (from.get("conversation")) choose(from.get("channel") || "", from.get("conversation"));
// `live=off` shows the present state once: a browser that takes a picture waits for the end of all requests.
document.addEventListener("DOMContentLoaded", () => {
  if (from.get("live") !== "off") listen();
  refresh();
});
