/**
 * Votes and undos on their way to the server, in the order given.
 *
 * Each lies in localStorage until the server has answered, so that neither a reload nor a server
 * that is away loses one; sent again it has the same `vote_id`, which the server counts once.
 * An undo has a `vote_id` of its own, and takes back the voter's last vote.
 */

import { Away, pause, request } from "./server.js";

const PATHS = { vote: "api/votes", undo: "api/undo" };

export class Outbox extends EventTarget {
  /** `place`: prefix of the keys in localStorage, one study's. */
  constructor(place) {
    super();
    this.place = `${place} unsent `;
    this.entries = stored(this.place); // {order, kind, body, undoes, tried}
    this.changes = 0; // entries that came or went
    this.away = false;
    this.sending = false;
  }

  /** Number of entries that wait, of one voter or of all. */
  size(voter) {
    return this.of(voter).length;
  }

  of(voter) {
    return this.entries.filter(({ body }) => voter === undefined || body.voter === voter);
  }

  /** What the waiting entries will add to the voter's votes. */
  ahead(voter) {
    return this.of(voter).reduce((sum, { kind }) => sum + (kind === "vote" ? 1 : -1), 0);
  }

  /** Send a vote, or an undo of the vote `undoes`. */
  add(kind, body, undoes = null) {
    const order = Math.max(Date.now(), (this.entries.at(-1)?.order ?? 0) + 1);
    const entry = { order, kind, body, undoes, tried: false };
    this.entries.push(entry);
    this.changes += 1;
    this.keep(entry);
    this.send();
  }

  /** Take back a vote that never left; false where it may have reached the server. */
  withdraw(voteId) {
    const entry = this.entries.find(({ kind, body }) => kind === "vote" && body.vote_id === voteId);
    if (!entry || entry.tried) return false;
    this.drop(entry);
    return true;
  }

  /** Resolves at the server's next answer to what waits. */
  next() {
    return new Promise((resolve) => {
      for (const type of ["sent", "refused"]) this.addEventListener(type, resolve, { once: true });
    });
  }

  /** Send what waits, first in, first out; one sender at a time. */
  async send() {
    if (this.sending) return;
    this.sending = true;
    let failures = 0;
    while (this.entries.length) {
      const [entry] = this.entries;
      entry.tried = true;
      this.keep(entry);
      try {
        const answer = await request(PATHS[entry.kind], entry.body);
        failures = 0;
        this.drop(entry);
        this.tell("sent", { entry, answer });
      } catch (error) {
        if (await lasts(error, entry)) {
          this.refuse(entry, error);
          continue;
        }
        this.turn(true);
        await pause(failures++);
        continue;
      }
      this.turn(false);
    }
    this.sending = false;
    this.turn(false);
  }

  /** Give up an entry that the server will not take, and the undo of a vote that is not there. */
  refuse(entry, error) {
    this.drop(entry);
    const { vote_id } = entry.body;
    this.entries.filter(({ undoes }) => undoes === vote_id).forEach((undo) => this.drop(undo));
    this.tell("refused", { entry, error });
  }

  turn(away) {
    this.away = away;
    this.tell("state", {});
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  keep(entry) {
    try {
      localStorage.setItem(this.place + entry.body.vote_id, JSON.stringify(entry));
    } catch {
      // Full or forbidden: memory holds it as long as the page is open.
    }
  }

  drop(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.changes += 1;
    try {
      localStorage.removeItem(this.place + entry.body.vote_id);
    } catch {
      // Nothing was kept.
    }
  }
}

/** Whether a refusal is final; a 404 may also mean that another studio answers at this port. */
async function lasts(error, entry) {
  if (error instanceof Away) return false;
  if (error.status !== 404) return true;
  try {
    await request("api/study");
    return true;
  } catch {
    return false;
  }
}

function stored(place) {
  const found = [];
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(place)) found.push(JSON.parse(localStorage.getItem(key)));
    }
  } catch {
    // Forbidden: nothing was kept.
  }
  return found.sort((one, other) => one.order - other.order);
}
