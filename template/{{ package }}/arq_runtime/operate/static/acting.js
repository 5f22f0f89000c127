// What is done: to one job, and to many.

import { button, byId, count } from "./build.js";
import { described, place, understood } from "./place.js";
import { ask } from "./server.js";

let mayAct = false;
export const setMayAct = (may) => {
  mayAct = may;
};

let refresh = () => {};
export const onDone = (callback) => {
  refresh = callback;
};

// --- One job -----------------------------------------------------------------------

const DONE = {
  retry: "Queued again.",
  discard: "Discarded.",
  "run-now": "It runs now.",
  abort: "Aborted.",
};
const ACTIONS = {
  queued: [["Abort", "abort"]],
  deferred: [["Run now", "run-now"], ["Abort", "abort"]],
  in_progress: [["Abort", "abort"]],
  failed: [["Retry", "retry"], ["Discard", "discard"]],
  complete: [],
};

export function actions(job) {
  if (!mayAct) return [];
  const { queue } = place();
  return ACTIONS[job.state].map(([text, action]) =>
    button(text, `${action} ${job.job_id}`, (pressed) => actOn(job, action, queue, pressed)));
}

async function actOn(job, action, queue, pressed) {
  const all = [...pressed.parentElement.querySelectorAll("button")];
  const set = (isBusy) => {
    for (const one of all) {
      one.dataset.done = isBusy ? "1" : "";
      if (isBusy) one.setAttribute("aria-disabled", "true");
      else one.removeAttribute("aria-disabled");
    }
  };
  set(true); // the second click of a double one is no second action
  try {
    const { done, batch, state } = await ask(action, { queue, id: job.job_id }, "POST");
    if (!done && state === "in_progress") {
      set(false);
      toast("Asked to stop, still running.");
    } else {
      const row = pressed.closest("tr");
      if (row) {
        row.classList.add("gone");
        pressed.parentElement.dataset.said = done ? DONE[action] : "It has moved on.";
      }
      const undo = done && action === "discard" && { queue, batch };
      toast(done ? DONE[action] : "Nothing was changed: the job has moved on.", undo);
    }
  } catch (error) {
    set(false);
    toast(error.message);
  }
  await refresh();
}

// --- Many jobs ---------------------------------------------------------------------

const BULK = {
  failed: [["Retry all", "retry-all", "Retry"], ["Discard all", "discard-all", "Discard"]],
  queued: [["Purge", "purge", "Delete"]],
  deferred: [["Purge", "purge", "Delete"]],
};
const SAID = { "retry-all": "queued again", "discard-all": "discarded", purge: "deleted" };

export function bulkActions(number) {
  const { state, group } = place();
  if (!mayAct || !number || !(state in BULK)) return [];
  return BULK[state].map(([text, action, verb]) =>
    // What is typed by then counts, entered or not.
    button(text, action, () =>
      actOnAll(action, verb, { ...understood(byId("search").value), group })));
}

export function groupActions({ task, error }) {
  if (!mayAct) return [];
  return BULK.failed.map(([text, action, verb]) =>
    button(verb, `${action} ${task} ${error}`, () =>
      actOnAll(action, verb, { task, group: error })));
}

async function actOnAll(action, verb, which) {
  const { queue, state } = place();
  try {
    const { count: number, until } = await ask("count", { queue, state, ...which });
    if (!number) return toast(`There are none${described(which)}.`);
    const kind = state === "failed" ? "failed" : state;
    const what = `${verb} ${number.toLocaleString()} ${kind} ${number === 1 ? "job" : "jobs"}`
      + `${described(which)} in ${queue}?`;
    const isMeant = action === "purge"
      ? prompt(`${what} They cannot be had back. Type their number.`) === String(number)
      : confirm(what);
    if (!isMeant) return undefined;
    const { done, batch } = await ask(`all/${action}`, {
      queue, state, ...which, expected: number, ...(state !== "deferred" && { until }),
    }, "POST");
    const undo = done && action === "discard-all" && { queue, batch };
    toast(`${count(done)} ${SAID[action]}.`, undo);
  } catch (error) {
    toast(error.message);
  }
  return refresh();
}

// --- What was done -----------------------------------------------------------------

let toastTimer;
export function toast(text, undo = null) {
  // what a dialog is not part of cannot be pressed while it is open
  (byId("job").open ? byId("job") : document.body).append(byId("toast"));
  byId("toast-text").textContent = text;
  byId("undo").hidden = !undo;
  byId("undo").onclick = undo && (async () => {
    try {
      const { done } = await ask("undo", undo, "POST");
      toast(done ? `${count(done)} brought back.` : "They cannot be had back any more.");
    } catch (error) {
      toast(error.message);
    }
    await refresh();
  });
  byId("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => byId("toast").classList.remove("shown"), undo ? 15000 : 4000);
}
