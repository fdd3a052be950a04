/** The studio's page: a name, tasks one after another, thanks. */

import { Judging } from "./judging.js";
import { listen } from "./keys.js";
import { Outbox } from "./outbox.js";
import * as screens from "./screens.js";
import { insist, Refused } from "./server.js";
import * as view from "./view.js";
import { Zoom } from "./zoom.js";

const { page } = view;
const PLACE = `tastemaker ${location.pathname}`; // the secret address is the study's own

const outbox = new Outbox(PLACE);
const zoom = new Zoom(page.stage, {
  tapped: (frame, twice) => judging?.tapped(frame, twice),
  changed: screens.drawZoom,
});
let study = null;
let judging = null;
let unanswered = false; // a request of this module

async function open() {
  study = await ask("api/study");
  for (const id of ["title", "welcome-title", "end-title"]) page[id].textContent = study.title ?? "";
  if (study.title) document.title = `${study.title} – Tastemaker studio`;
  screens.drawHelp(study.kind);
  outbox.send();
  const name = remembered();
  if (name) await enter(name);
  else welcome();
}

/** Ask until there is an answer, and tell meanwhile that there is none. */
async function ask(path, body) {
  const answer = await insist(path, body, () => away(true));
  away(false);
  return answer;
}

function away(is) {
  unanswered = is;
  page["opening-text"].textContent = is
    ? "The studio's server does not answer. Trying again…"
    : "Opening the studio…";
  tell();
}

function welcome(error = "") {
  view.showScreen("welcome");
  screens.drawWelcome(study, enter);
  page["name-error"].textContent = error;
  page.name.focus();
}

async function enter(name) {
  let voter;
  try {
    voter = await ask("api/voters", { name });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    remember(null);
    away(false);
    return welcome(error.message);
  }
  remember(voter.voter);
  judging = new Judging(PLACE, voter, outbox, zoom, { ended: thank, changed: tell });
  screens.drawVoter(judging.voter);
  judging.next();
  page.prompt.focus({ preventScroll: true });
}

async function somebodyElse() {
  judging.close();
  judging = null;
  remember(null);
  view.showScreen("opening");
  study = await ask("api/study");
  welcome();
}

function thank({ voter, deck, history }) {
  view.showScreen("end");
  page.thanks.textContent = `Thank you, ${voter}.`;
  page["end-text"].textContent = "All votes are saved. You may close this page.";
  page["end-undo"].hidden = history.isEmpty;
  screens.drawFacts([["Votes in this study", `${deck.done} of ${deck.total}`], ...history.facts()]);
  page.thanks.focus({ preventScroll: true });
}

/** Tell whether votes wait and whether the server answers. */
function tell() {
  const waiting = outbox.size();
  const isAway = outbox.away || unanswered || Boolean(judging?.deck.away);
  screens.drawState(isAway, waiting, {
    named: judging !== null,
    stuck: judging !== null && !judging.task && isAway,
    broken: Boolean(judging?.isBroken),
  });
}

function remembered() {
  try {
    return sessionStorage.getItem(`${PLACE} voter`);
  } catch {
    return null;
  }
}

function remember(name) {
  try {
    if (name) sessionStorage.setItem(`${PLACE} voter`, name);
    else sessionStorage.removeItem(`${PLACE} voter`);
  } catch {
    // Forbidden: a reload asks for the name again.
  }
}

function isMine({ body }) {
  return body.voter === judging?.voter;
}

outbox.addEventListener("state", tell);
outbox.addEventListener("sent", ({ detail: { entry, answer } }) => {
  if (isMine(entry)) judging.took(answer);
});
outbox.addEventListener("refused", ({ detail: { entry, error } }) => {
  if (isMine(entry) && entry.kind === "vote") judging.lost(entry.body.vote_id);
  screens.notice(`The server did not take ${entry.kind === "vote" ? "a vote" : "an undo"}: ${error.message}`);
});

page["name-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  const name = page.name.value.trim();
  if (name) enter(name);
});
page.skip.addEventListener("click", () => judging.vote(view.SKIP));
page.undo.addEventListener("click", () => judging.undo());
page["end-undo"].addEventListener("click", () => judging.undo());
page["end-other"].addEventListener("click", somebodyElse);
page.who.addEventListener("click", somebodyElse);
page["zoom-reset"].addEventListener("click", () => zoom.reset());
page["help-open"].addEventListener("click", () => page.help.showModal());
addEventListener("online", () => outbox.send());
addEventListener("beforeunload", (event) => {
  if (outbox.size() && outbox.away) event.preventDefault();
});
new ResizeObserver(() => judging?.task && view.place(judging.task)).observe(page.middle);
listen(
  {
    get task() { return judging?.task ?? null; },
    get picks() { return judging?.picks ?? null; },
    vote: (answer) => judging?.vote(answer),
    undo: () => judging?.undo(),
  },
  zoom,
);
open();
