// What is shown: the queue with its workers and cron jobs, the list, one job.

import { actions, bulkActions, groupActions, toast } from "./acting.js";
import {
  byId, count, element, fill, forget, progress, setHidden, since, span, time, words,
} from "./build.js";
import { clockSkew } from "./server.js";
import { STATES, link, place } from "./place.js";

const REASONS = {
  timeout: "timed out",
  expired: "did not start in time",
  unknown: "no worker has this task",
  killed: "its worker was killed too often",
};

const waits = (job) => (job.waits_for ? `waits for limit ${job.waits_for}` : "");

// --- The queue ---------------------------------------------------------------------

export function showQueue(stats, queues, mayAct) {
  const { state } = place();
  fill(byId("queue"), queues.map(({ queue }) =>
    new Option(queue, queue, queue === stats.queue, queue === stats.queue)));
  byId("queue").value = stats.queue;
  byId("pause").hidden = !mayAct;
  byId("pause").textContent = stats.paused ? "Resume" : "Pause";
  setHidden("paused", !stats.paused);
  const dropped = Object.entries(stats.dropped).map(([task, number]) =>
    `${number.toLocaleString()} of ${task}`);
  setHidden("dropped", !dropped.length);
  byId("dropped").textContent = `Failed jobs were dropped to make room: ${dropped.join(", ")}.`;
  fill(byId("states"), Object.entries(STATES).map(([name, title]) => {
    const number = stats[name]?.toLocaleString() ?? "✓"; // nobody counts complete ones
    const oldest = name === "queued" && stats.oldest_at
      ? [element("span", { className: "oldest" }, ", oldest ", since(stats.oldest_at))] : [];
    const made = element("a", { href: link({ state: name, by: "", group: "", start: "", offset: 0, job: "" }) },
      element("span", { className: "number", textContent: number }),
      element("span", { className: "name" }, title, ...oldest));
    made.dataset.key = made.dataset.state = name;
    if (name === state) made.setAttribute("aria-current", "page");
    if (stats[name]) made.classList.add("some");
    return made;
  }));
  fill(byId("bulk"), [...views(state), ...bulkActions(stats[state])]);
  showWorkers(stats);
  showCron(stats);
  setHidden("limits", Object.keys(stats.waiting).length === 0);
  fill(byId("waiting"), Object.entries(stats.waiting).map(([name, number]) =>
    element("li", {}, words(name), element("span", { textContent: count(number, "job") }))));
  const tasks = new Set(stats.workers.flatMap((worker) => worker.tasks));
  fill(byId("tasks"), [...tasks].sort().map((task) => new Option(`task:${task}`)));
}

function views(state) {
  const { by, search } = place();
  const made = [];
  const add = (text, changes, isNow) => {
    const view = element("a", { href: link({ start: "", offset: 0, job: "", ...changes }), textContent: text, className: "view" });
    view.dataset.key = text;
    if (isNow) view.setAttribute("aria-current", "true");
    made.push(view);
  };
  if (state === "failed") add("By error", { by: by ? "" : "error", group: "" }, by);
  if (search) add("In all states", { state: state === "all" ? "failed" : "all", by: "", group: "" }, state === "all");
  return made;
}

const isLate = (stats, at) => at < Date.now() - clockSkew && !stats.paused;

function showWorkers(stats) {
  const slots = stats.workers.reduce((sum, worker) => sum + worker.max_jobs, 0);
  const silent = stats.workers.filter((worker) => !worker.is_alive).length;
  const bad = Object.values(stats.last_runs).filter((run) => run.outcome !== "complete").length;
  fill(byId("summary"), [
    stats.workers.length
      ? words(`${count(stats.workers.length, "worker")}, ${stats.in_progress} of ${slots} slots in use`)
      : words("No worker is alive", "warn"),
    ...(silent ? [words(`${silent} ${silent === 1 ? "has" : "have"} gone silent`, "warn")] : []),
    ...(bad ? [words(`${count(bad, "cron job")} failed last time`, "error")] : []),
  ]);
  fillList(byId("workers"), stats.workers.map(workerCard), "No worker is alive.");
}

function workerCard(worker) {
  const slots = element("meter", { max: worker.max_jobs, value: worker.running.length });
  slots.setAttribute("aria-label", "Slots in use");
  const running = worker.running.slice(0, 20).map((id) => jobLink(id));
  const sign = element("span", { className: worker.is_alive ? "quiet" : "warn" },
    "last sign ", since(worker.seen), " ago");
  return element("li", {},
    element("strong", {}, words(worker.host), ` pid ${worker.pid}`),
    sign,
    element("span", {}, slots, ` ${worker.running.length} of ${worker.max_jobs}`),
    element("span", { className: "quiet" }, "started ", time(worker.since),
      worker.version && ` · ${worker.version.slice(0, 10)}`),
    element("span", { className: "running" }, ...running));
}

function showCron(stats) {
  const next = new Map(stats.workers.flatMap((worker) => Object.entries(worker.cron)));
  const names = new Set([...next.keys(), ...Object.keys(stats.last_runs)]);
  const at = (name) => next.get(name) ?? Infinity;
  const rows = [...names].sort((a, b) => at(a) - at(b)).map((name) => {
    const run = stats.last_runs[name];
    const isNow = next.has(name) && isLate(stats, next.get(name));
    const said = run ? [
      element("span", { className: run.outcome === "complete" ? "quiet" : "error" },
        `last: ${run.outcome}, took ${span((run.finished - run.started) / 1000)}, `,
        time(run.finished)),
      ...(run.outcome === "complete" ? [] : [jobLink(run.job_id)]),
    ] : [element("span", { className: "quiet", textContent: "no run yet" })];
    return element("li", {}, element("strong", {}, words(name)),
      next.has(name) ? element("span", {}, isNow ? "" : "next ", time(next.get(name), true)) : "",
      ...said);
  });
  fillList(byId("cron"), rows, "None.");
}

function fillList(list, rows, none) {
  const empty = element("li", { className: "quiet", textContent: none });
  fill(list, rows.length ? rows : [empty]);
}

function jobLink(id) {
  const made = element("a", { href: link({ job: id }), className: "id job-link" }, words(id));
  made.dataset.key = id;
  return made;
}

// --- The list ----------------------------------------------------------------------

const COLUMNS = ["Job", "Task", "Arguments", "What happened", "Tries", "When", ""];
const GROUP_COLUMNS = ["Jobs", "Task", "Error", "First", "Last", ""];
let listed = { question: "", ids: new Set() };

function row(job) {
  const state = place().state === "all" ? [words(`${STATES[job.state]} `, "quiet")] : [];
  const happened = job.error
    ? [words(job.error, "error")]
    : [...progress(job), words(waits(job) || job.result, "quiet")];
  if (job.state === "in_progress" && job.worker) happened.push(words(` on ${job.worker}`, "quiet"));
  const when = job.finished ?? job.due ?? job.started ?? job.enqueued;
  const cells = [
    [jobLink(job.job_id)], [words(job.task)], [words(job.arguments, "code")],
    [...state, ...happened], [String(job.tries)], [time(when)],
    [element("span", { className: "actions" }, ...actions(job))],
  ];
  return rowOf(job.job_id, COLUMNS, cells);
}

function groupRow(group) {
  const { task, error } = group;
  const shown = element("a", { href: link({ by: "", group: error, search: `task:${task}`, start: "", offset: 0 }) },
    words(error || "(none)", "error"));
  shown.dataset.key = `${task} ${error}`;
  const cells = [
    [group.count.toLocaleString()], [words(task)], [shown],
    [time(group.first)], [time(group.last)],
    [element("span", { className: "actions" }, ...groupActions(group))],
  ];
  return rowOf(`${task} ${error}`, GROUP_COLUMNS, cells);
}

function rowOf(id, names, cells) {
  const made = element("tr", {}, ...cells.map((content, i) => {
    const cell = element("td", {}, ...content);
    cell.dataset.label = names[i];
    return cell;
  }));
  made.dataset.id = id;
  return made;
}

// While one is about to press something in the list, it stands still.
let isPointed = false;
export const setPointed = (is) => {
  isPointed = is;
};
export const isHeld = () =>
  isPointed || byId("jobs").querySelector(":focus-visible") !== null;

export function showList(question, rows, names) {
  const ids = new Set(rows.map((one) => one.dataset.id));
  const isOther = question !== listed.question;
  if (!isOther && isHeld()) {
    hold(rows, ids);
    return;
  }
  byId("news").hidden = true;
  listed = { question, ids };
  byId("table").className = names === COLUMNS ? "" : "groups";
  fill(byId("columns"), names.map((name) => element("th", { scope: "col", textContent: name })));
  if (isOther) forget(byId("jobs"));
  fill(byId("jobs"), rows);
}

function hold(rows, ids) {
  const fresh = new Map(rows.map((one) => [one.dataset.id, one]));
  for (const old of byId("jobs").children) {
    const now = fresh.get(old.dataset.id);
    if (!now) {
      old.classList.add("gone");
      for (const one of old.querySelectorAll("button")) one.setAttribute("aria-disabled", "true");
    } else if (!old.classList.contains("gone") && now.children[3].innerHTML !== old.children[3].innerHTML
        && now.querySelector("progress")) {
      old.children[3].replaceWith(now.children[3]);
    }
  }
  forget(byId("jobs"));
  const news = [...ids].filter((id) => !listed.ids.has(id)).length;
  byId("news").hidden = news === 0;
  byId("news").textContent = `${news} new: show`;
}

export function showJobs(found) {
  const { state, offset, group, search } = place();
  byId("jobs-title").textContent = state === "all" ? "Jobs" : `${STATES[state]} jobs`;
  setHidden("group", !group);
  byId("group-text").textContent = group;
  const question = JSON.stringify({ ...place(), job: "" });
  showList(question, found.jobs.map(row), COLUMNS);
  const none = found.jobs.length === 0;
  const isFiltered = search || group;
  const looked = found.next
    ? `among the first ${found.looked_at.toLocaleString()} of ${found.total.toLocaleString()}` : "";
  showNone(none && !(byId("jobs").children.length && isHeld()),
    isFiltered ? `None that fit ${looked || "here"}.` : "There are none.");
  byId("range").textContent = none ? ""
    : `${(offset + 1).toLocaleString()} to ${(offset + found.jobs.length).toLocaleString()}`;
  byId("previous").hidden = offset === 0;
  byId("next").hidden = !found.more;
  byId("previous").dataset.offset = Math.max(0, offset - found.size);
  byId("next").dataset.offset = offset + found.size;
  byId("looked").textContent = found.next
    ? `Looked at ${found.looked_at.toLocaleString()} of ${found.total.toLocaleString()}.` : "";
  byId("go-on").hidden = !found.next;
  byId("go-on").href = link({ start: found.next, offset: 0 });
}

export function showGroups({ groups, more }) {
  byId("jobs-title").textContent = "Failures by error";
  setHidden("group", true);
  showList(JSON.stringify({ ...place(), job: "" }), groups.map(groupRow), GROUP_COLUMNS);
  showNone(groups.length === 0, "There are none.");
  byId("range").textContent = more ? "The 200 most frequent" : "";
  for (const id of ["previous", "next", "go-on"]) byId(id).hidden = true;
  byId("looked").textContent = "";
}

function showNone(isNone, text) {
  byId("none").hidden = !isNone;
  byId("none").textContent = text;
  byId("table").hidden = isNone;
}

// --- One job -----------------------------------------------------------------------

async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else { // over plain HTTP
    const area = element("textarea", { value: text });
    byId("job-body").append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied.");
}

function copyButton(what, text) {
  const made = element("button", { type: "button", className: "copy", textContent: "Copy" });
  made.setAttribute("aria-label", `Copy ${what}`);
  made.onclick = () => copy(text).catch((error) => toast(error.message));
  return made;
}

export function showJob(job, logUrl) {
  const runs = job.state === "in_progress" && job.started
    ? element("span", {}, "for ", since(job.started)) : "";
  const facts = [
    ["State", job.success === false ? "complete (failed)" : STATES[job.state].toLowerCase()],
    ["Why", REASONS[job.reason] ?? waits(job)],
    ["Worker", job.worker && words(job.worker)],
    ["Runs", runs],
    ["Tries", String(job.tries)],
    ["Enqueued", time(job.enqueued)],
    ["Due", time(job.due)],
    ["Started", time(job.started)],
    ["Finished", time(job.finished)],
    ["Log", logUrl && element("a", {
      href: logUrl.replaceAll("{job_id}", encodeURIComponent(job.job_id)),
      target: "_blank", rel: "noopener noreferrer", textContent: "Open",
    })],
  ].filter(([, value]) => value);
  const list = element("dl", {}, ...facts.flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", {}, value)]));
  const block = (title, text, className = "") => text
    ? [element("h3", {}, title, copyButton(title.toLowerCase(), text)),
      element("pre", { textContent: text, className, dir: "auto", tabIndex: 0 })]
    : [];
  const past = job.errors.map((error) => element("li", {}, ...(error.retried_by === undefined
    ? [`Try ${error.try}, `, time(error.at), ": ", words(error.error, "error")]
    : ["Retried ", time(error.at), " by ", words(error.retried_by || "code")])));
  byId("job-title").replaceChildren(words(job.task || "Job"), " ", words(job.job_id, "id"),
    copyButton("id", job.job_id));
  fill(byId("job-body"), [
    list,
    element("p", {}, ...progress(job)),
    ...block("Arguments", job.arguments),
    ...block("Error", job.error, "error"),
    ...block("Result", job.result),
    ...(past.length ? [element("h3", { textContent: "What happened" }),
      element("ol", { className: "history" }, ...past)] : []),
    ...block("Traceback", job.traceback),
    ...block("Log", job.log),
  ]);
  fill(byId("job-actions"), actions(job));
}
