/** The voter's next tasks, with their pictures loaded before they are shown. */

import { pause, request } from "./server.js";

const PICTURES = 12; // loaded ahead, about
const MOST = 6; // tasks ahead
const ASKED = 8; // at most, in one request

/**
 * Events: `more` after new tasks came, `dry` when the server has none and no vote waits,
 * `state` when `away` may have changed.
 */
export class Deck extends EventTarget {
  constructor(voter, outbox) {
    super();
    this.voter = voter;
    this.outbox = outbox;
    this.current = null; // the task that is shown
    this.tasks = []; // those after it
    this.done = 0;
    this.total = 0;
    this.away = false;
    this.pictures = new Map(); // address: {image, ready, loaded, failed, dropped}
    this.answered = new Set(outbox.of(voter).map(({ body }) => body.ticket));
    this.supplying = false;
    this.closed = false;
  }

  /** Number of tasks to have in hand after the one that is shown. */
  get wanted() {
    const each = (this.current ?? this.tasks[0])?.images.length ?? 2;
    return Math.max(2, Math.min(MOST, Math.ceil(PICTURES / each)));
  }

  /** Go to the next task; null where none is in hand. */
  advance() {
    this.current = this.tasks.shift() ?? null;
    return this.current;
  }

  /** Go back to an undone task; the shown one comes after it. */
  back(task) {
    if (this.current) this.tasks.unshift(this.current);
    this.answered.delete(task.ticket);
    this.current = task;
  }

  /** Note the counts of an answer. */
  note({ done, total }) {
    this.done = done;
    this.total = total;
  }

  /** Ask for tasks until enough are in hand, or there are no more. */
  async supply() {
    if (this.supplying) return;
    this.supplying = true;
    for (let failures = 0; !this.closed && this.tasks.length < this.wanted; ) {
      let found = 0;
      try {
        found = await this.ask();
        failures = 0;
        this.turn(false);
      } catch {
        this.turn(true);
        await pause(failures++);
        continue;
      }
      if (this.closed) break;
      if (found) this.dispatchEvent(new Event("more"));
      else if (this.outbox.size(this.voter)) await this.outbox.next();
      else {
        if (!this.current) this.dispatchEvent(new Event("dry"));
        break;
      }
    }
    this.supplying = false;
  }

  /** Take the server's next tasks that are not known here yet; their number. */
  async ask() {
    const { changes } = this.outbox;
    const isQuiet = !this.outbox.size(this.voter);
    const count = Math.min(ASKED, this.wanted + 1 + this.outbox.size(this.voter));
    const answer = await request(`api/tasks?${new URLSearchParams({ voter: this.voter, count })}`);
    const known = new Set([...this.tasks, ...(this.current ? [this.current] : [])].map(ticketOf));
    const found = answer.tasks.filter(
      ({ ticket }) => !known.has(ticket) && !this.answered.has(ticket),
    );
    // Beside a vote on its way, `done` may be of before it or after.
    if (isQuiet && changes === this.outbox.changes) this.note(answer);
    this.total = answer.total;
    this.tasks.push(...found);
    found.forEach((task) => this.load(task));
    return found.length;
  }

  turn(away) {
    this.away = away;
    this.dispatchEvent(new Event("state"));
  }

  /** Load a task's pictures and references; resolves once all its pictures can be drawn. */
  load(task) {
    for (const url of task.question.references ?? []) this.picture(url);
    return Promise.all(task.images.map(({ url }) => this.picture(url).ready));
  }

  /** A picture being loaded, the same for the same address. */
  picture(url) {
    if (!this.pictures.has(url)) {
      const held = { image: new Image(), loaded: false, failed: false, dropped: false };
      held.image.draggable = false;
      held.ready = decode(held, url);
      this.pictures.set(url, held);
    }
    return this.pictures.get(url);
  }

  /** Whether all pictures of a task can be drawn at once. */
  isReady(task) {
    return task.images.every(({ url }) => this.picture(url).loaded);
  }

  /** Whether a picture of a task was asked for in vain. */
  isBroken(task) {
    return task.images.some(({ url }) => this.picture(url).failed);
  }

  /** Forget pictures that neither tasks in hand nor `others` show. */
  trim(others) {
    const tasks = [...this.tasks, ...others, ...(this.current ? [this.current] : [])];
    const needed = new Set(
      tasks.flatMap(({ images, question }) => [
        ...images.map(({ url }) => url),
        ...(question.references ?? []),
      ]),
    );
    for (const [url, held] of this.pictures) {
      if (needed.has(url)) continue;
      held.dropped = true;
      this.pictures.delete(url);
    }
  }

  /** End: somebody else votes. */
  close() {
    this.closed = true;
    this.current = null;
    this.tasks = [];
    this.trim([]);
  }
}

function ticketOf({ ticket }) {
  return ticket;
}

/** Load until it succeeds or is no longer wanted: a server that is away comes back. */
async function decode(held, url) {
  for (let tries = 0; !held.dropped; tries += 1) {
    try {
      held.image.src = url;
      await held.image.decode();
      held.loaded = true;
      held.failed = false;
      return;
    } catch {
      held.failed = true;
      held.image.removeAttribute("src");
      await pause(tries);
    }
  }
}
