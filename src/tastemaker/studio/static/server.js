/** Requests to the studio's server, relative to the page's secret address. */

const PATIENCE = 10_000; // milliseconds

/** No answer, or one that says: later. The request may be sent again. */
export class Away extends Error {}

/** An answer that will not change: `status` and the server's words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON that answers a GET, or a POST where there is a body. */
export async function request(path, body) {
  const sent = {
    cache: "no-store",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  };
  if (body) {
    sent.method = "POST";
    sent.headers = { "Content-Type": "application/json", "X-Tastemaker": "1" };
    sent.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(path, sent);
    text = await response.text();
  } catch (error) {
    throw new Away(error.message);
  }
  const { status } = response;
  if (status >= 500 || status === 429 || status === 408) throw new Away(`status ${status}`);
  const answer = parsed(text);
  if (!response.ok) throw new Refused(status, answer?.error ?? `status ${status}`);
  if (answer === undefined) throw new Away("not JSON");
  return answer;
}

/** `request`, again and again until there is an answer; `away` is called before each wait. */
export async function insist(path, body, away = () => {}) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await request(path, body);
    } catch (error) {
      if (!(error instanceof Away)) throw error;
      away();
      await pause(tries);
    }
  }
}

/** Wait before try number `tries + 1`: half a second, doubling up to four. */
export function pause(tries) {
  return new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** tries, 4000)));
}

/** A random UUID, also where the page is not a secure context (plain HTTP from another machine). */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
