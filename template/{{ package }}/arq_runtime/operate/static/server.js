// What is asked of the server. An answer that has not changed is not sent again.

const answers = new Map(); // by address: its tag, and what it was
export let clockSkew = 0; // of this machine's clock, in milliseconds

export class Trouble extends Error {
  constructor(message, isEnded = false) {
    super(message);
    this.isEnded = isEnded; // the session: to be logged in again
  }
}

const ENDED = "You are not logged in any more. Reload the page to log in again.";

export async function ask(path, parameters = {}, method = "GET") {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined);
  // from the origin: a page opened as user:password@host has no other valid address
  const url = `${location.origin}${location.pathname}api/${path}?${new URLSearchParams(given)}`;
  const before = method === "GET" ? answers.get(url) : undefined;
  const response = await fetch(url, {
    method,
    headers: { "X-Arq-Page": "1", ...(before && { "If-None-Match": before.tag }) },
    signal: AbortSignal.timeout(method === "GET" ? 15000 : 600000),
  });
  const now = Number(response.headers.get("X-Arq-Now"));
  if (now) clockSkew = Date.now() - now;
  if (response.status === 304) return before.answer;
  const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  // a way in that is not ours answers with its own page, or sends us there
  const isElsewhere = response.redirected || !isJson;
  if (response.status === 401 || (response.ok && isElsewhere)
      || (path === "queues" && [403, 404].includes(response.status))) {
    throw new Trouble(ENDED, true);
  }
  const answer = isJson ? await response.json() : {};
  if (!response.ok) {
    const why = typeof answer.detail === "string" ? answer.detail : "";
    throw new Trouble(why || `The server answers ${response.status}.`);
  }
  const tag = response.headers.get("ETag");
  if (method === "GET" && tag) {
    answers.delete(url);
    answers.set(url, { tag, answer });
    if (answers.size > 50) answers.delete(answers.keys().next().value);
  }
  return answer;
}
