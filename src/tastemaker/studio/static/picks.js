/** The best and the worst of several pictures, picked one after the other. */

import { page } from "./view.js";

const MARKS = ["best", "worst"];
const SHOWN = 450; // milliseconds that both marks are seen before the next task

export class BestWorst {
  /** `give({best, worst})` is called once both are picked. */
  constructor(give) {
    this.give = give;
    this.picked = [];
    this.draw();
  }

  /** Pick a picture, or take it back. */
  pick(index) {
    if (!this.frame(index)) return;
    clearTimeout(this.timer);
    if (this.picked.includes(index)) this.picked = this.picked.filter((each) => each !== index);
    else this.picked = [...this.picked.slice(0, 1), index];
    this.draw();
    const [best, worst] = this.picked;
    if (worst !== undefined) this.timer = setTimeout(() => this.give({ best, worst }), SHOWN);
  }

  /** Take all picks back; whether there was any. */
  clear() {
    clearTimeout(this.timer);
    const any = this.picked.length > 0;
    this.picked = [];
    if (any) this.draw();
    return any;
  }

  frame(index) {
    return page.stage.querySelector(`[data-index="${index}"]`);
  }

  draw() {
    page.stage.querySelectorAll(".frame").forEach((frame, index) => {
      const mark = MARKS[this.picked.indexOf(index)];
      frame.setAttribute("aria-pressed", String(mark !== undefined));
      frame.parentElement.dataset.mark = mark ?? "";
      frame.nextElementSibling.textContent = mark
        ? `${mark[0].toUpperCase()}${mark.slice(1)}`
        : String(index + 1);
    });
    const hints = ["Pick the best", "Now the worst", "Thank you"];
    page.answers.firstElementChild.textContent = hints[this.picked.length];
  }
}
