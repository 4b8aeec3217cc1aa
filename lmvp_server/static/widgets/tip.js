// A box with the values at the pointer.
import { make } from "./dom.js";

const AWAY = 14;

export class Tip {
  constructor(box) {
    this.box = box;
    this.root = make("div", { class: "lmvp-tip", "aria-hidden": "true" }); // a live region has the same content
    this.root.hidden = true;
    box.append(this.root);
  }

  /** Show rows right of and below a point in the box, or on the other side if they would leave the page or view. */
  show(x, y, ...rows) {
    this.root.replaceChildren(...rows);
    this.root.hidden = false;
    const box = this.box.getBoundingClientRect();
    const around = (this.box.closest(".lmvp") ?? this.box).getBoundingClientRect();
    const { offsetWidth: wide, offsetHeight: high } = this.root;
    const [first, last] = [Math.max(0, around.left), Math.min(innerWidth, around.right)];
    const [top, bottom] = [Math.max(0, around.top), Math.min(innerHeight, around.bottom)];
    const left = box.left + x + AWAY + wide <= last ? box.left + x + AWAY : box.left + x - AWAY - wide;
    const upper = box.top + y + AWAY + high <= bottom ? box.top + y + AWAY : box.top + y - AWAY - high;
    this.root.style.left = `${Math.max(first, Math.min(left, last - wide)) - box.left}px`;
    this.root.style.top = `${Math.max(top, Math.min(upper, bottom - high)) - box.top}px`;
  }

  hide() { this.root.hidden = true; }
}
