/** The votes of one voter in this tab: what undo goes back to, and the figures of the last page. */

const UNDONE = 20; // votes that can be undone one after another

export class History {
  constructor(place) {
    this.place = place;
    this.votes = stored(place); // {vote_id, seconds, skipped, task}
  }

  /** Tasks that undo may show again. */
  get tasks() {
    return this.votes.flatMap(({ task }) => (task ? [task] : []));
  }

  get isEmpty() {
    return !this.votes.at(-1)?.task;
  }

  add(vote) {
    this.votes.push(vote);
    const old = this.votes.at(-1 - UNDONE);
    if (old) delete old.task;
    this.keep();
  }

  pop() {
    if (this.isEmpty) return undefined;
    const vote = this.votes.pop();
    this.keep();
    return vote;
  }

  /** Leave out a vote that was not taken. */
  forget(voteId) {
    this.votes = this.votes.filter(({ vote_id }) => vote_id !== voteId);
    this.keep();
  }

  /** Figures of the last page: pairs of a term and a text. */
  facts() {
    const given = this.votes.filter(({ skipped }) => !skipped).map(({ seconds }) => seconds);
    const skipped = this.votes.length - given.length;
    const middle = given.sort((one, other) => one - other)[Math.floor(given.length / 2)];
    return [
      ...(skipped ? [["Skipped", String(skipped)]] : []),
      ...(given.length ? [["Median time of a vote", `${middle.toFixed(1)} s`]] : []),
    ];
  }

  keep() {
    try {
      sessionStorage.setItem(this.place, JSON.stringify(this.votes));
    } catch {
      // Full or forbidden: undo ends at a reload.
    }
  }
}

function stored(place) {
  try {
    return JSON.parse(sessionStorage.getItem(place)) ?? [];
  } catch {
    return [];
  }
}
