/**
 * Zoom and pan of all pictures together.
 *
 * The state is one scale and one offset, in widths and heights of a frame, so that pictures of
 * different sizes show the same part. The style sheet draws it from the stage's --s, --x and --y.
 */

const MOST = 16;
const CLOSE = 3; // of a double click
const STEP = 1.5; // of + and -
const DOUBLE = 280; // milliseconds between two clicks
const SLOP = 6; // pixels a click may move

export class Zoom {
  /** `tapped(frame, twice)` is called at each click that was no drag; `changed(scale)` after each zoom. */
  constructor(stage, { tapped, changed }) {
    this.stage = stage;
    this.tapped = tapped;
    this.changed = changed;
    this.pointers = new Map();
    this.dragged = false;
    this.last = { time: -Infinity, frame: null };
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) {
      stage.addEventListener(type, (event) => this.pointers.delete(event.pointerId));
    }
    stage.addEventListener("click", (event) => this.click(event));
    this.reset();
  }

  get isZoomed() {
    return this.scale > 1;
  }

  reset() {
    this.set(1, 0, 0);
  }

  /** Zoom by a factor around a point of a frame, in fractions of it; the middle by default. */
  by(factor, [x, y] = [0.5, 0.5], eased = true) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const ratio = scale / this.scale;
    this.set(scale, x - (x - this.x) * ratio, y - (y - this.y) * ratio, eased);
  }

  in() {
    this.by(STEP);
  }

  out() {
    this.by(1 / STEP);
  }

  /** Move what is shown, in fractions of a frame. */
  pan(x, y, eased = false) {
    this.set(this.scale, this.x + x, this.y + y, eased);
  }

  set(scale, x, y, eased = false) {
    const inside = (offset) => Math.min(0, Math.max(1 - scale, offset));
    [this.scale, this.x, this.y] = [scale, inside(x), inside(y)];
    const { style, classList } = this.stage;
    style.setProperty("--s", this.scale);
    style.setProperty("--x", `${100 * this.x}%`);
    style.setProperty("--y", `${100 * this.y}%`);
    classList.toggle("eased", eased);
    classList.toggle("zoomed", this.isZoomed);
    this.changed(this.scale);
  }

  wheel(event) {
    const frame = frameOf(event);
    if (!frame) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // a trackpad's pinch comes with ctrlKey
    this.by(Math.exp(-event.deltaY * lines * speed), within(frame, event), false);
  }

  down(event) {
    const frame = frameOf(event);
    if (!frame || event.button > 0) return;
    if (!this.pointers.size) this.dragged = false;
    this.pointers.set(event.pointerId, { frame, x: event.clientX, y: event.clientY, moved: 0 });
  }

  move(event) {
    const held = this.pointers.get(event.pointerId);
    if (!held) return;
    const before = [...this.pointers.values()].map(({ x, y }) => ({ x, y }));
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    held.moved += Math.hypot(dx, dy);
    if (held.moved > SLOP) this.dragged = true;
    Object.assign(held, { x: event.clientX, y: event.clientY });
    if (this.pointers.size === 2) this.pinch(held.frame, before, [...this.pointers.values()]);
    else if (this.pointers.size === 1 && this.isZoomed && this.dragged) {
      const { width, height } = held.frame.getBoundingClientRect();
      this.pan(dx / width, dy / height);
    }
    if (this.dragged && this.isZoomed) this.stage.setPointerCapture(event.pointerId);
  }

  pinch(frame, before, after) {
    const [from, to] = [middle(before), middle(after)];
    const { width, height } = frame.getBoundingClientRect();
    this.dragged = true;
    this.pan((to.x - from.x) / width, (to.y - from.y) / height);
    const point = within(frame, { clientX: to.x, clientY: to.y });
    if (from.apart > 0) this.by(to.apart / from.apart, point, false);
  }

  click(event) {
    const frame = frameOf(event);
    if (!frame || (this.dragged && event.detail > 0)) {
      this.dragged = false;
      return;
    }
    const time = performance.now();
    const twice = this.last.frame === frame && time - this.last.time < DOUBLE;
    this.last = { time: twice ? -Infinity : time, frame };
    this.tapped(frame, twice);
    if (!twice || event.detail === 0) return; // a key's click has no place
    if (this.isZoomed) this.set(1, 0, 0, true);
    else this.by(CLOSE, within(frame, event));
  }
}

function frameOf(event) {
  return event.target.closest?.(".frame");
}

/** A pointer's place in a frame, in fractions of it. */
function within(frame, { clientX, clientY }) {
  const { left, top, width, height } = frame.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}

function middle([one, other]) {
  return {
    x: (one.x + other.x) / 2,
    y: (one.y + other.y) / 2,
    apart: Math.hypot(one.x - other.x, one.y - other.y),
  };
}
