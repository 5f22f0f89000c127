// What is shown lives in the address (#queue=...&state=failed&...), so that links, reload
// and the back button work.

export const STATES = {
  queued: "Queued",
  deferred: "Deferred",
  in_progress: "In progress",
  failed: "Failed",
  complete: "Complete",
};

export function place() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const state = hash.get("state");
  return {
    queue: hash.get("queue") ?? "",
    state: state in STATES || state === "all" ? state : "failed",
    by: hash.get("by") === "error" ? "error" : "",
    search: hash.get("search") ?? "",
    group: hash.get("group") ?? "",
    start: hash.get("start") ?? "",
    offset: Math.max(0, Number.parseInt(hash.get("offset")) || 0),
    job: hash.get("job") ?? "",
  };
}

export function link(changes) {
  const wanted = Object.entries({ ...place(), ...changes });
  return `#${new URLSearchParams(wanted.filter(([, value]) => value))}`;
}

export const go = (changes) => {
  location.hash = link(changes);
};

// --- What is typed -----------------------------------------------------------------

const UNITS = { s: 1, min: 60, m: 60, h: 3600, d: 86400 };

function sinceTime(text) {
  const age = /^(\d{1,6})(s|min|m|h|d)$/.exec(text);
  if (age) return Date.now() - age[1] * UNITS[age[2]] * 1000;
  const clock = /^(\d{1,2}):(\d{2})$/.exec(text);
  if (!clock) return Date.parse(text) || 0;
  const at = new Date();
  at.setHours(clock[1], clock[2], 0, 0);
  return at > Date.now() ? at - 86400000 : Number(at);
}

// Of "task:mend since 02:00 some text": task, since (in minutes, so that the same words
// are the same question a moment later) and text.
export function understood(search) {
  let task = "";
  let since = 0;
  const text = search
    .replace(/(?:^|\s)task:(\S+)/, (_, name) => {
      task = name;
      return " ";
    })
    .replace(/(?:^|\s)since (\S+)/, (all, when) => {
      since = Math.floor(sinceTime(when) / 60000) * 60000;
      return since ? " " : all;
    })
    .trim();
  return { task, text, ...(since && { since }) };
}

export function described({ task, text, since, group }) {
  return [
    task && ` of the task ${task}`,
    text && ` with “${text}”`,
    group && ` with the error “${group}”`,
    since && ` since ${new Date(since).toLocaleString()}`,
  ].filter(Boolean).join("");
}
