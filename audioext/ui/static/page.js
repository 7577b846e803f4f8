"use strict";
// Untrusted values (titles, messages, links) are only inserted as text, or as http(s) links.

const STAGES = ["submitted", "text", "first", "complete"];
const byId = (id) => document.getElementById(id);
const jobs = new Map(); // ref -> { row, item }
const isSandbox = document.body.dataset.kind === "sandbox"; // rows are then its tasks, and deliveries the webhooks that it sent
const body = make("pre", { hidden: true, tabindex: "0", role: "region", "aria-label": "The body of the delivery" });
let chosen = "";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function link(value) {
  return /^https?:\/\//i.test(value || "") ? value : null;
}

function ago(iso) {
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

async function ask(path, options = {}) {
  const response = await fetch(path, { headers: { "X-Audioext": "page" }, ...options });
  if (response.status === 401) throw new Error("the token of this page is no longer accepted: open the printed link again");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.problem || `the server answered ${response.status}`);
  return answer;
}

// --- the list ------------------------------------------------------------------------------------------

function isWanted(row) {
  const state = byId("state").value;
  const isOpen = !["complete", "failed", "refused", "expired"].includes(row.state);
  if (state === "open" ? !isOpen : state === "ended" ? !["refused", "expired"].includes(row.state) : state && row.state !== state) {
    return false;
  }
  if (byId("provider").value && byId("provider").value !== row.provider) return false;
  const words = byId("words").value.trim().toLowerCase();
  const texts = [row.ref, row.title, row.key, row.source, row.task_id, row.problem, JSON.stringify(row.meta)];
  return !words || texts.join("\n").toLowerCase().includes(words);
}

function fill(item, row) {
  const [state, title, facts, steps, time] = item.querySelector(".job").children;
  state.textContent = row.state;
  state.className = `state ${row.state}`;
  title.textContent = row.title || row.source || row.ref;
  facts.textContent = [row.provider, row.operation, row.problem].filter(Boolean).join(" · ");
  STAGES.forEach((stage, index) => steps.children[index].classList.toggle("done", stage in row.stages));
  time.dateTime = row.created_at;
  time.textContent = ago(row.created_at);
  item.hidden = !isWanted(row);
}

function put(row, isNew) {
  let job = jobs.get(row.ref);
  if (!job) {
    const item = byId("row").content.firstElementChild.cloneNode(true);
    item.querySelector(".job").addEventListener("click", () => choose(row.ref));
    job = { item };
    jobs.set(row.ref, job);
    if (isNew) byId("jobs").prepend(item);
  }
  job.row = row;
  fill(job.item, row);
  if (![...byId("provider").options].some((option) => option.value === row.provider)) {
    byId("provider").append(make("option", { value: row.provider }, row.provider));
  }
  return job.item;
}

function count() {
  const shown = [...jobs.values()].filter((job) => !job.item.hidden).length;
  byId("count").textContent = shown === jobs.size ? `${shown}` : `${shown} of ${jobs.size}`;
}

async function load() {
  const rows = await ask("jobs");
  jobs.clear();
  const items = document.createDocumentFragment();
  for (const row of rows) items.append(put(row, false));
  byId("jobs").replaceChildren(items);
  count();
  mark();
}

function mark() {
  for (const [ref, job] of jobs) job.item.querySelector(".job").setAttribute("aria-current", String(ref === chosen));
}

// --- one job -------------------------------------------------------------------------------------------

async function choose(ref) {
  chosen = ref;
  mark();
  history.replaceState(null, "", `#${encodeURIComponent(ref)}`);
  await show();
  byId("job").focus({ preventScroll: window.innerWidth > 960 });
}

async function show() {
  const ref = chosen;
  let job;
  try {
    job = await ask(`jobs/${encodeURIComponent(ref)}`);
  } catch (error) {
    byId("job").replaceChildren(make("p", { class: "problem" }, error.message));
    return;
  }
  if (ref !== chosen) return;
  const playing = byId("job").dataset.ref === ref && [...byId("job").querySelectorAll("audio")].some((one) => !one.paused);
  if (playing) { // an update must not stop the audio: show it when the audio ends
    byId("job").querySelector("audio").addEventListener("ended", show, { once: true });
    return;
  }
  const held = byId("job").contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  if (byId("job").dataset.ref !== ref) body.hidden = true;
  byId("job").dataset.ref = ref;
  byId("job").replaceChildren(...parts(job).filter(Boolean));
  if (held) byId("job").querySelector(`[aria-label="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

function parts(job) {
  const act = make("button", { type: "button", "aria-label": "Ask the provider now" }, "Ask the provider now");
  act.addEventListener("click", () => run(act, () => ask(`jobs/${encodeURIComponent(job.ref)}/refresh`, { method: "POST" })));
  const facts = {
    state: job.state, provider: job.provider, operation: job.operation, task: job.task_id || "not known", ref: job.ref,
    source: job.source, model: job.model, faults: job.faults, key: job.key, credits: job.credits,
    meta: Object.keys(job.meta).length ? JSON.stringify(job.meta) : null,
    request: JSON.stringify(job.request),
  };
  const list = make("dl");
  for (const [name, value] of Object.entries(facts)) {
    if (value !== null && value !== undefined) list.append(make("dt", {}, name), make("dd", {}, String(value)));
  }
  for (const [what, at] of Object.entries(job.due)) {
    const seconds = Math.round((Date.parse(at) - Date.now()) / 1000);
    list.append(make("dt", {}, `next: ${what}`), make("dd", {}, seconds > 0 ? `in ${seconds} s` : "now"));
  }
  return [
    make("h2", {}, job.title || job.source || job.ref),
    job.problem ? make("p", { class: "problem" }, job.problem) : null,
    list,
    isSandbox ? null : make("p", {}, act),
    ...job.tracks.map(track),
    ...table("Stages", ["stage", "after", "how"], job.timeline.map((step) => [step.event, `+${step.seconds} s`, step.how])),
    ...table("Journal", ["entry", "after", "kind", "state", "note"], job.journal.map((entry) => [
      entry.entry, `+${entry.seconds} s`, entry.status ? `${entry.kind} ${entry.status}` : entry.kind, entry.state || "", entry.note,
    ])),
    ...deliveries(job.deliveries),
    ...(job.handler_faults.length ? [make("h3", {}, "Handlers"), ...job.handler_faults.map((one) => make("p", { class: "problem" }, one))] : []),
  ];
}

function track(one, index) {
  const cover = link(one.image_url);
  const sound = link(one.audio_url) || link(one.stream_url);
  const title = one.title || one.id || "a track";
  const length = one.duration ? ` · ${Math.round(one.duration)} s` : "";
  return make("div", { class: "track" },
    cover ? make("img", { src: cover, alt: "", loading: "lazy", referrerpolicy: "no-referrer" }) : null,
    make("div", {},
      make("strong", {}, title), make("small", {}, length),
      one.failure ? make("p", { class: "problem" }, one.failure) : null,
      sound ? make("audio", { controls: true, preload: "none", src: sound, "aria-label": `${title}, track ${index + 1}` }) : null,
      sound || one.failure ? null : make("p", { class: "hint" }, "no audio yet")));
}

function table(title, heads, rows) {
  if (!rows.length) return [];
  return [make("h3", {}, title), make("table", { "aria-label": title },
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell instanceof Node ? cell : String(cell)))))))];
}

function deliveries(list) {
  const rows = list.map((one, index) => {
    const which = `of number ${list.length - index}`;
    const look = make("button", { type: "button", "aria-label": `Body ${which}` }, "Body");
    look.addEventListener("click", () => run(look, async () => {
      const found = await ask(`deliveries/${encodeURIComponent(one.id)}`);
      body.textContent = pretty(found.body);
      body.hidden = false;
    }));
    const again = make("button", { type: "button", "aria-label": `Replay ${which}` }, "Replay");
    again.addEventListener("click", () => run(again, async () => {
      const done = await ask(`deliveries/${encodeURIComponent(one.id)}/replay`, { method: "POST" });
      say(`the delivery was answered with ${done.status}`);
    }));
    const when = new Date(one.received_at).toLocaleTimeString();
    return [when, one.verdict, `${one.bytes} B`, one.note, make("span", {}, look, " ", isSandbox ? "" : again)];
  });
  const heads = isSandbox ? ["sent", "answer", "size", "webhook", "actions"] : ["received", "verdict", "size", "note", "actions"];
  const found = table(isSandbox ? "Webhooks" : "Deliveries", heads, rows);
  return found.length ? [...found, body] : [];
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function run(button, work) {
  if (button.getAttribute("aria-busy")) return; // a disabled button would lose the focus
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    say(error.message);
    button.after(make("span", { class: "problem", role: "alert" }, ` ${error.message}`));
  } finally {
    button.removeAttribute("aria-busy");
  }
}

// --- news ----------------------------------------------------------------------------------------------

function say(words) {
  byId("news").textContent = words;
}

function live(words, kind) {
  byId("live").textContent = words;
  byId("live").className = kind;
}

function listen() {
  const events = new EventSource("events");
  events.addEventListener("open", () => {
    live("live", "on");
    load().catch((error) => live(error.message, "off")); // events may have been missed while disconnected
  });
  events.addEventListener("error", () => live("the connection was lost; trying again", "off"));
  events.addEventListener("again", () => Promise.all([load(), health()]).catch((error) => live(error.message, "off")));
  events.addEventListener("job", (event) => {
    const row = JSON.parse(event.data);
    const old = jobs.get(row.ref);
    if (!old || old.row.state !== row.state) say(`${row.title || row.ref}: ${row.state}`);
    put(row, true);
    count();
    if (row.ref === chosen) show();
    if (isSandbox && !old) health().catch(() => {}); // a fault may be used up
  });
}

// --- sandbox controls ----------------------------------------------------------------------------------

function control() {
  byId("jobs-title").firstElementChild.textContent = "Tasks";
  document.title = "audioext sandbox";
  byId("control").hidden = false;
  const play = async (path, body) => {
    try {
      playing(await ask(`control/${path}`, { method: "POST", body: JSON.stringify(body) }));
    } catch (error) {
      byId("playing").textContent = error.message;
    }
  };
  byId("control").addEventListener("submit", (event) => {
    event.preventDefault();
    play("play", [byId("fault").value]);
  });
  byId("clear").addEventListener("click", () => play("clear", []));
  for (const stage of STAGES.slice(1)) {
    const box = make("input", { type: "checkbox", value: stage });
    box.addEventListener("change", () => play(box.checked ? "hold" : "release", [stage]));
    byId("held").append(make("label", {}, box, ` ${stage}`));
  }
}

function playing(now) {
  for (const box of byId("held").querySelectorAll("input")) box.checked = now.held.includes(box.value);
  byId("playing").textContent = now.faults.length ? `active: ${now.faults.join(", ")}` : "no faults";
}

async function health() {
  const found = await ask("health");
  const words = [...(found.problem ? [`the store is down: ${found.problem}`] : []), ...found.warnings];
  byId("warnings").replaceChildren(...words.map((one) => make("li", {}, one)));
  byId("warnings").hidden = !words.length;
  if (isSandbox) playing(found);
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => {
  for (const job of jobs.values()) job.item.hidden = !isWanted(job.row);
  count();
});
byId("jobs").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...byId("jobs").querySelectorAll("li:not([hidden]) .job")];
  const next = buttons[buttons.indexOf(document.activeElement) + step];
  if (next) next.focus();
});
byId("job").addEventListener("keydown", (event) => { // return to the chosen row: the list may have 1,000
  if (event.key === "Escape") jobs.get(chosen)?.item.querySelector(".job").focus();
});
setInterval(() => {
  for (const time of byId("jobs").querySelectorAll("time")) time.textContent = ago(time.dateTime);
}, 30000);
if (isSandbox) control();
listen();
health().catch(() => {});
if (location.hash) choose(decodeURIComponent(location.hash.slice(1)));
