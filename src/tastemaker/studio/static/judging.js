/** One voter's way through the tasks: show one, take the answer, go on at once. */

import { Deck } from "./deck.js";
import { History } from "./history.js";
import { BestWorst } from "./picks.js";
import * as screens from "./screens.js";
import { uuid } from "./server.js";
import * as view from "./view.js";

const { page } = view;
const BOUNCE = 120; // milliseconds in which a second answer is a slip of the finger
const SECOND_CLICK = 300; // milliseconds after which a click on a picture is a vote

export class Judging {
  /**
   * `voter` is the server's answer to the name; `ended(judging)` is called when no task is left,
   * `changed()` when what the page tells of its state may have changed.
   */
  constructor(place, voter, outbox, zoom, { ended, changed }) {
    this.voter = voter.voter;
    this.outbox = outbox;
    this.zoom = zoom;
    this.changed = changed;
    this.history = new History(`${place} history ${this.voter}`);
    this.deck = new Deck(this.voter, outbox);
    this.deck.note(voter);
    this.deck.addEventListener("more", () => this.task || this.next());
    this.deck.addEventListener("dry", () => ended(this));
    this.deck.addEventListener("state", changed);
    this.picks = null; // of best and worst
    this.drawn = 0; // when the task was drawn, and from when its pictures were seen
    this.seen = null;
    this.clicked = null; // timer of a click on a picture
    this.vote = this.vote.bind(this);
  }

  get task() {
    return this.deck.current;
  }

  /** Whether a picture of the shown task does not load. */
  get isBroken() {
    return this.task !== null && this.seen === null && this.deck.isBroken(this.task);
  }

  /** Votes given, those on their way included. */
  get done() {
    const done = this.deck.done + this.outbox.ahead(this.voter);
    return Math.min(this.deck.total, Math.max(0, done));
  }

  /** Go to the next task. */
  next() {
    if (this.deck.advance()) this.show();
    else this.clear();
    this.deck.supply();
  }

  /** Show the task at hand. */
  show() {
    const { task, deck } = this;
    const { kind, prompt, question } = task;
    clearTimeout(this.clicked);
    view.showScreen("judging");
    if (page.answers.className !== kind) {
      view.drawAnswers(kind, this.vote);
      screens.drawHelp(kind);
    }
    view.drawTexts(question.text, prompt);
    view.drawReferences(question.references ?? []);
    view.drawPictures(task, deck);
    this.picks?.clear();
    this.picks = kind === "best_worst" ? new BestWorst(this.vote) : null;
    this.zoom.reset();
    [this.drawn, this.seen] = [performance.now(), null];
    if (deck.isReady(task)) this.ready(task);
    else deck.load(task).then(() => this.ready(task));
    deck.trim(this.history.tasks);
    this.count();
  }

  ready(task) {
    if (this.task !== task) return;
    this.seen = performance.now();
    this.changed();
  }

  /** Show that there is no task at hand. */
  clear() {
    view.showScreen("judging");
    view.drawTexts("", "");
    view.drawReferences([]);
    page.stage.replaceChildren();
    this.picks = null;
    this.count();
  }

  count() {
    screens.drawCount(this.done, this.deck.total);
    page.undo.disabled = this.history.isEmpty;
    this.changed();
  }

  /** Give the answer to the shown task: the next is shown at once, the vote sent behind it. */
  vote(answer) {
    const now = performance.now();
    const { task, voter } = this;
    const skipped = answer === view.SKIP;
    if (!task || (this.seen === null && !skipped) || now - this.drawn < BOUNCE) return;
    const seconds = this.seen === null ? 0 : Math.round(now - this.seen) / 1000;
    const { task_id, shown, question, ticket, kind } = task;
    const vote_id = uuid();
    this.deck.answered.add(ticket);
    this.history.add({ vote_id, seconds, skipped, task });
    this.outbox.add("vote", {
      vote_id, voter, task_id, shown, question: question.key, answer, seconds, ticket,
    });
    if (kind !== "best_worst" || skipped) view.flash(answer);
    this.next();
    this.tell(view.labelOf(kind, answer));
  }

  /** Go back to the last vote's task, or take back a pick. */
  undo() {
    if (this.picks?.clear()) return;
    const last = this.history.pop();
    if (!last) return;
    const { vote_id, task } = last;
    if (!this.outbox.withdraw(vote_id)) {
      this.outbox.add("undo", { vote_id: uuid(), voter: this.voter }, vote_id);
    }
    this.deck.back(task);
    this.show();
    this.tell("Undone");
  }

  tell(what) {
    view.say(`${what}. ${page.count.textContent}. ${this.task?.prompt ?? ""}`);
  }

  /** A click on a picture: a pick, or, if no second click follows, the vote for it. */
  tapped(frame, twice) {
    clearTimeout(this.clicked);
    const index = Number(frame.dataset.index);
    if (this.picks) this.picks.pick(index);
    else if (this.task?.kind === "pair" && !twice && !this.zoom.isZoomed) {
      const { task } = this;
      const give = () => task === this.task && this.vote(index ? "right" : "left");
      this.clicked = setTimeout(give, SECOND_CLICK);
    }
  }

  /** The server took a vote or an undo. */
  took(answer) {
    const { task } = this;
    this.deck.note(answer);
    const back = answer.task;
    if (back && task?.task_id === back.task_id && String(task.shown) === String(back.shown)) {
      task.ticket = back.ticket;
    }
    this.count();
  }

  /** The server took it not, and never will. */
  lost(voteId) {
    this.history.forget(voteId);
    this.count();
  }

  close() {
    clearTimeout(this.clicked);
    this.picks?.clear();
    this.deck.close();
  }
}
