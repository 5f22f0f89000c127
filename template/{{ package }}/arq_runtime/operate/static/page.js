// The jobs page: what is asked for, when, and what its controls do.

import { onDone, setMayAct, toast } from "./acting.js";
import { byId, element, fill, setHidden, tick } from "./build.js";
import { showHistory } from "./charts.js";
import { go, link, place, understood } from "./place.js";
import { ask } from "./server.js";
import { showGroups, setPointed, showJob, showJobs, showQueue } from "./show.js";

const REFRESH_MS = 2000;
// Left alone for so long, the page asks less often.
const QUIET_AFTER_MS = 120000;
const QUIET_REFRESH_MS = 5000;

let timer;
let latest = 0;
let usedAt = Date.now();
// The history is one of minutes.
const HISTORY_MS = 30000;
let historyOf = { question: "", at: 0 };

async function refresh() {
  clearTimeout(timer);
  const mine = ++latest;
  let isEnded = false;
  try {
    await load(() => mine === latest);
    if (mine !== latest) return;
    setHidden("trouble", true);
    live("live");
  } catch (error) {
    if (mine !== latest) return;
    byId("trouble").textContent = error.message;
    setHidden("trouble", false);
    isEnded = error.isEnded;
    live(isEnded ? "logged out" : "trying again");
  }
  const pause = Date.now() - usedAt > QUIET_AFTER_MS ? QUIET_REFRESH_MS : REFRESH_MS;
  if (!document.hidden && !isEnded) timer = setTimeout(refresh, pause);
}

async function load(isWanted) {
  const answer = await ask("queues");
  if (!isWanted()) return;
  const { queue, state, by, search, group, start, offset, job } = place();
  const name = queue || answer.default;
  const stats = answer.queues.find((one) => one.queue === name);
  if (!queue) history.replaceState(history.state, "", link({ queue: name }));
  setMayAct(answer.may_act);
  const which = { ...understood(search), group };
  const [found, details] = await Promise.all([
    by ? ask("groups", { queue: name, ...which })
      : ask("jobs", { queue: name, state, offset, start, ...which }),
    job ? ask("job", { queue: name, id: job }).catch((error) => error) : null,
  ]);
  if (!isWanted()) return;
  if (stats) showQueue(stats, answer.queues, answer.may_act);
  if (by) showGroups(found);
  else showJobs(found);
  if (byId("search") !== document.activeElement) byId("search").value = search;
  showDialog(job, details, answer.log_url);
  tick();
  const { task } = understood(search);
  const question = JSON.stringify([name, task]);
  if (question !== historyOf.question || Date.now() - historyOf.at > HISTORY_MS) {
    historyOf = { question, at: Date.now() };
    const history = await ask("history", { queue: name, task });
    if (isWanted()) showHistory(history);
  }
}

function live(text) {
  byId("live").dataset.is = text;
  if (byId("live-text").textContent !== text) byId("live-text").textContent = text;
}

// --- The dialog: a step in the history, which closing it takes back -----------------

function showDialog(job, details, logUrl) {
  const dialog = byId("job");
  if (details instanceof Error) {
    byId("job-title").textContent = job;
    fill(byId("job-body"), [element("p", { textContent: details.message })]);
    fill(byId("job-actions"), []);
  } else if (details) {
    showJob(details, logUrl);
  }
  if (details && !dialog.open && place().job) dialog.showModal();
  if (!details && dialog.open) dialog.close();
}

document.addEventListener("click", (event) => {
  const opened = event.target.closest?.("a.job-link");
  if (!opened || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState({ isDialog: true }, "", opened.getAttribute("href"));
  refresh();
});
byId("close").onclick = () => byId("job").close();
byId("job").onclose = () => {
  if (!place().job) return; // it was closed by going back
  if (history.state?.isDialog) {
    history.back();
  } else {
    history.replaceState(null, "", link({ job: "" }));
    refresh();
  }
};

// --- Controls -----------------------------------------------------------------------

byId("queue").onchange = (event) =>
  go({ queue: event.target.value, search: "", group: "", start: "", offset: 0, job: "" });
byId("pause").onclick = async () => {
  const { queue } = place();
  const isPaused = !byId("paused").hidden;
  try {
    await ask(isPaused ? "resume" : "pause", { queue }, "POST");
    toast(isPaused ? "It goes on." : "Paused.");
  } catch (error) {
    toast(error.message);
  }
  await refresh();
};
byId("filter").onsubmit = (event) => event.preventDefault();
byId("search").onchange = byId("search").onsearch = (event) => {
  const search = event.target.value.trim();
  if (search !== place().search) go({ search, start: "", offset: 0 });
};
byId("group-clear").onclick = () => go({ group: "", search: "", start: "", offset: 0 });
for (const id of ["previous", "next"]) {
  byId(id).onclick = (event) => go({ offset: event.target.dataset.offset });
}
byId("news").onclick = () => {
  setPointed(false);
  refresh();
};
byId("jobs").addEventListener("pointerover", (event) => setPointed(event.pointerType !== "touch"));
byId("jobs").addEventListener("pointerleave", () => {
  setPointed(false);
  refresh();
});
onDone(refresh);
for (const name of ["pointermove", "keydown", "focus"]) {
  addEventListener(name, () => {
    usedAt = Date.now();
  }, { passive: true });
}
addEventListener("popstate", refresh);
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
