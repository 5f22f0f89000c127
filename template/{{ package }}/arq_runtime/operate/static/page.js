// The jobs page. What is shown lives in the address (#queue=...&state=failed&...), so
// links, reload and the back button work. Text from Redis is only ever put in as text.

const REFRESH_MS = 2000;
const STATES = {
  queued: "Queued",
  deferred: "Deferred",
  in_progress: "In progress",
  failed: "Failed",
  complete: "Complete",
};
const REASONS = {
  timeout: "timed out",
  expired: "did not start in time",
  unknown: "no worker has this task",
  killed: "its worker was killed too often",
};
const byId = (id) => document.getElementById(id);

let queues = [];
let clockSkew = 0; // of this machine's clock, in milliseconds

// --- The address ---------------------------------------------------------------

function place() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const state = hash.get("state");
  return {
    queue: hash.get("queue") ?? "",
    state: state in STATES ? state : "failed",
    task: hash.get("task") ?? "",
    offset: Math.max(0, Number.parseInt(hash.get("offset")) || 0),
    job: hash.get("job") ?? "",
  };
}

function link(changes) {
  const wanted = Object.entries({ ...place(), ...changes });
  return `#${new URLSearchParams(wanted.filter(([, value]) => value))}`;
}

const go = (changes) => {
  location.hash = link(changes);
};

// --- The server ----------------------------------------------------------------

async function ask(path, parameters = {}, method = "GET") {
  // from the origin: a page opened as user:password@host has no other valid address
  const url = `${location.origin}${location.pathname}api/${path}`;
  const response = await fetch(`${url}?${new URLSearchParams(parameters)}`, {
    method,
    headers: { "X-Arq-Page": "1" },
    signal: AbortSignal.timeout(15000),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(String(answer.detail ?? `The server answers ${response.status}.`));
  }
  clockSkew = Date.now() - answer.now;
  return answer;
}

async function act(action, parameters, said) {
  try {
    const { done } = await ask(action, parameters, "POST");
    toast(done ? said(done) : "Nothing was changed: the job has moved on.");
  } catch (error) {
    toast(error.message);
  }
  await refresh();
}

// --- Building ------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Replaces the content only when it is another one, and keeps the focus: a refresh must
// not take away what one is about to press, or has selected.
const shown = new WeakMap();

function fill(parent, made) {
  const content = made.map((child) => child.outerHTML).join("");
  if (shown.get(parent) === content) return;
  shown.set(parent, content);
  const key = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...made);
  const keyed = key ? [...parent.querySelectorAll("[data-key]")] : [];
  keyed.find((child) => child.dataset.key === key)?.focus();
}

function button(text, key, onclick) {
  const made = element("button", { type: "button", textContent: text, onclick });
  made.dataset.key = key;
  return made;
}

// Text from Redis, in whichever direction it is written.
const words = (text, className = "") =>
  element("span", { textContent: text, className, dir: "auto" });

// Its text is up to tick(), so that passing time is not another content.
function time(at) {
  if (at === null) return "";
  return element("time", {
    dateTime: new Date(at).toISOString(),
    title: new Date(at).toLocaleString(),
  });
}

function span(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [size, unit] = units.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.round(seconds / size)} ${unit}`;
}

function tick() {
  for (const shownTime of document.querySelectorAll("time")) {
    const seconds = (Date.now() - clockSkew - Date.parse(shownTime.dateTime)) / 1000;
    const text = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
    if (shownTime.textContent !== text) shownTime.textContent = text;
  }
}

function progress(job) {
  if (!job.progress) return [];
  const { percent, message } = job.progress;
  const bar = element("progress", { max: 100, value: percent });
  bar.setAttribute("aria-label", "Progress");
  return [bar, words(` ${Math.round(percent)} % ${message}`, "quiet")];
}

// --- Acting --------------------------------------------------------------------

const count = (number) => `${number.toLocaleString()} ${number === 1 ? "job" : "jobs"}`;

function actions(job) {
  const { queue } = place();
  const one = (text, action, said) =>
    button(text, `${action} ${job.job_id}`, () => {
      act(action, { queue, id: job.job_id }, () => said);
    });
  return {
    queued: [one("Abort", "abort", "Aborted.")],
    deferred: [one("Run now", "run-now", "It runs now."), one("Abort", "abort", "Aborted.")],
    in_progress: [one("Abort", "abort", "Aborted.")],
    failed: [
      one("Retry", "retry", "Queued again."),
      one("Discard", "discard", "Discarded."),
    ],
    complete: [],
  }[job.state];
}

function bulkActions(stats) {
  const { queue, state, task } = place();
  if (state !== "failed" || !stats.failed) return [];
  const all = (text, action, said) =>
    button(text, action, () => {
      const which = task ? `all failed jobs of ${task}` : "all failed jobs";
      if (confirm(`${text.split(" ")[0]} ${which} of ${queue}?`)) {
        act(action, task ? { queue, task } : { queue }, said);
      }
    });
  return [
    all("Retry all", "retry-all", (done) => `${count(done)} queued again.`),
    all("Discard all", "discard-all", (done) => `${count(done)} discarded.`),
  ];
}

let toastTimer;
function toast(text) {
  byId("toast").textContent = text;
  byId("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => byId("toast").classList.remove("shown"), 4000);
}

// --- Showing -------------------------------------------------------------------

function showQueue(stats) {
  const { state } = place();
  fill(byId("queue"), queues.map(({ queue }) =>
    new Option(queue, queue, queue === stats.queue, queue === stats.queue)));
  byId("queue").value = stats.queue;
  byId("pause").textContent = stats.paused ? "Resume" : "Pause";
  byId("paused").hidden = !stats.paused;
  const dropped = Object.entries(stats.dropped).map(([task, number]) =>
    `${number.toLocaleString()} of ${task}`);
  byId("dropped").hidden = !dropped.length;
  byId("dropped").textContent = `Failed jobs were dropped to make room: ${dropped.join(", ")}.`;
  fill(byId("states"), Object.entries(STATES).map(([name, title]) => {
    const number = stats[name]?.toLocaleString() ?? "✓"; // nobody counts complete ones
    const oldest = name === "queued" && stats.queued ? `, oldest ${span(stats.oldest)}` : "";
    const made = element("a", { href: link({ state: name, offset: 0, job: "" }) },
      element("span", { className: "number", textContent: number }),
      element("span", { className: "name", textContent: title + oldest }));
    made.dataset.key = made.dataset.state = name;
    if (name === state) made.setAttribute("aria-current", "page");
    if (stats[name]) made.classList.add("some");
    return made;
  }));
  fill(byId("bulk"), bulkActions(stats));
  fillList(byId("workers"), stats.workers.map(workerCard), "No worker is alive.");
  const cron = new Map(stats.workers.flatMap((worker) => Object.entries(worker.cron)));
  const byTime = [...cron].sort((a, b) => a[1] - b[1]);
  const rows = byTime.map(([name, at]) =>
    element("li", {}, words(name), time(at), lastRun(stats.last_runs[name])));
  fillList(byId("cron"), rows, "None.");
  const tasks = new Set(stats.workers.flatMap((worker) => worker.tasks));
  fill(byId("tasks"), [...tasks].sort().map((task) => new Option(task)));
}

function lastRun(run) {
  if (!run) return "";
  return element("span", { className: "quiet" },
    `last: ${run.outcome} `, time(run.finished));
}

function fillList(list, rows, none) {
  const empty = element("li", { className: "quiet", textContent: none });
  fill(list, rows.length ? rows : [empty]);
}

function workerCard(worker) {
  const slots = element("meter", { max: worker.max_jobs, value: worker.running.length });
  slots.setAttribute("aria-label", "Slots in use");
  const running = worker.running.map((id) => {
    const made = element("a", { href: link({ job: id }), className: "id" }, words(id));
    made.dataset.key = id;
    return made;
  });
  return element("li", {},
    element("strong", {}, words(worker.host), ` pid ${worker.pid}`),
    element("span", { className: "quiet" }, "started ", time(worker.since),
      worker.version && ` · ${worker.version.slice(0, 10)}`),
    element("span", {}, slots, ` ${worker.running.length} of ${worker.max_jobs}`),
    element("span", { className: "running" }, ...running));
}

const COLUMNS = ["Job", "Task", "Arguments", "What happened", "Tries", "When", ""];

function row(job) {
  const id = element("a", { href: link({ job: job.job_id }), className: "id" }, words(job.job_id));
  id.dataset.key = job.job_id;
  const happened = job.error
    ? [words(job.error, "error")]
    : [...progress(job), words(job.result, "quiet")];
  const cells = [
    [id], [words(job.task)], [words(job.arguments, "code")], happened,
    [String(job.tries)], [time(job.finished ?? job.due ?? job.enqueued)],
    [element("span", { className: "actions" }, ...actions(job))],
  ];
  return element("tr", {}, ...cells.map((content, i) => {
    const cell = element("td", {}, ...content);
    cell.dataset.label = COLUMNS[i];
    return cell;
  }));
}

function showJobs({ jobs, more, size }) {
  const { state, task, offset } = place();
  byId("jobs-title").textContent = `${STATES[state]} jobs`;
  fill(byId("jobs"), jobs.map(row));
  byId("none").hidden = jobs.length > 0;
  byId("none").textContent = task ? `None of the task ${task}.` : "There are none.";
  document.querySelector("table").hidden = jobs.length === 0;
  byId("range").textContent = jobs.length
    ? `${(offset + 1).toLocaleString()} to ${(offset + jobs.length).toLocaleString()}` : "";
  byId("previous").hidden = offset === 0;
  byId("next").hidden = !more;
  byId("previous").onclick = () => go({ offset: Math.max(0, offset - size) });
  byId("next").onclick = () => go({ offset: offset + size });
}

function showJob(job) {
  const facts = [
    ["State", job.success === false ? "complete (failed)" : STATES[job.state].toLowerCase()],
    ["Why", REASONS[job.reason] ?? ""],
    ["Tries", String(job.tries)],
    ["Enqueued", time(job.enqueued)],
    ["Due", time(job.due)],
    ["Started", time(job.started)],
    ["Finished", time(job.finished)],
  ].filter(([, value]) => value);
  const list = element("dl", {}, ...facts.flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", {}, value)]));
  const block = (title, text, className = "") => text
    ? [element("h3", { textContent: title }),
      element("pre", { textContent: text, className, dir: "auto", tabIndex: 0 })]
    : [];
  const history = job.errors.map((error) =>
    element("li", {}, `Try ${error.try}, `, time(error.at), ": ", words(error.error, "error")));
  byId("job-title").replaceChildren(words(job.task || "Job"), " ", words(job.job_id, "id"));
  fill(byId("job-body"), [
    list,
    element("p", {}, ...progress(job)),
    ...block("Arguments", job.arguments),
    ...block("Error", job.error, "error"),
    ...block("Result", job.result),
    ...(history.length ? [element("h3", { textContent: "Failed tries" }),
      element("ol", { className: "history" }, ...history)] : []),
    ...block("Traceback", job.traceback),
  ]);
  fill(byId("job-actions"), actions(job));
}

// --- Refreshing ----------------------------------------------------------------

let timer;
let latest = 0;

async function refresh() {
  clearTimeout(timer);
  const mine = ++latest;
  try {
    await load(() => mine === latest);
    if (mine !== latest) return;
    byId("trouble").hidden = true;
    live("live");
  } catch (error) {
    if (mine !== latest) return;
    byId("trouble").textContent = error.message;
    byId("trouble").hidden = false;
    live("trying again");
  }
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MS);
}

async function load(isWanted) {
  const answer = await ask("queues");
  if (!isWanted()) return;
  queues = answer.queues;
  const { queue, state, task, offset, job } = place();
  const stats = queues.find((one) => one.queue === (queue || answer.default));
  if (!stats) return go({ queue: answer.default });
  if (!queue) history.replaceState(null, "", link({ queue: stats.queue }));
  const [jobs, details] = await Promise.all([
    ask("jobs", { queue: stats.queue, state, offset, ...(task && { task }) }),
    job ? ask("job", { queue: stats.queue, id: job }).catch((error) => error) : null,
  ]);
  if (!isWanted()) return;
  showQueue(stats);
  showJobs(jobs);
  if (byId("task") !== document.activeElement) byId("task").value = task;
  const dialog = byId("job");
  if (details instanceof Error) {
    byId("job-title").textContent = job;
    fill(byId("job-body"), [element("p", { textContent: details.message })]);
    fill(byId("job-actions"), []);
  } else if (details) {
    showJob(details);
  }
  if (details && !dialog.open) dialog.showModal();
  if (!details && dialog.open) dialog.close();
  tick();
}

function live(text) {
  byId("live").dataset.is = text;
  if (byId("live-text").textContent !== text) byId("live-text").textContent = text;
}

byId("columns").append(...COLUMNS.map((name) =>
  element("th", { scope: "col", textContent: name })));
byId("queue").onchange = (event) => go({ queue: event.target.value, offset: 0, job: "" });
byId("pause").onclick = () => {
  const { queue } = place();
  const isPaused = !byId("paused").hidden;
  act(isPaused ? "resume" : "pause", { queue }, () => isPaused ? "It goes on." : "Paused.");
};
byId("filter").onsubmit = (event) => event.preventDefault();
byId("task").onchange = byId("task").onsearch = (event) => {
  go({ task: event.target.value.trim(), offset: 0 });
};
byId("close").onclick = () => byId("job").close();
byId("job").onclose = () => go({ job: "" });
addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    live("paused while hidden");
  } else {
    refresh();
  }
});
setInterval(() => document.hidden || tick(), 1000);
refresh();
