// Places a live view over the static HTML that a notebook shows and saves.
// 
// A widget output shows "model not found" when the notebook is opened without its kernel, even if the output has an
// HTML fallback. The output is therefore only the static HTML, in an element that names the place of the widget. The
// front end creates the model of a widget when the kernel opens it, and the model's `initialize` calls `mount`. If it
// is never called (a saved page, an editor without widget models), the static HTML stays.

const HOST = "jp-RenderedHTMLCommon";

/** Show the live view in one place; return a function that restores the static HTML. On an error, it stays static. */
function cover(place, model, render) {
  const still = [...place.children];
  const host = place.closest(`.${HOST}`);
  const el = place.appendChild(document.createElement("div"));
  const show = (live) => {
    for (const child of still) child.style.display = live ? "none" : "";
    host?.classList.toggle(HOST, !live); // this class has styles for tables in prose: stripes, centred cells
    if (!live) el.remove();
  };
  show(true);
  try {
    const close = render({ model, el });
    return () => { close(); show(false); };
  } catch (error) {
    show(false);
    console.error(error);
    return () => {};
  }
}

/** Show the live view in all places of this widget, now and after each rendering; return a function that stops it. */
export function mount(model, render) {
  const places = document.getElementsByClassName(model.get("place"));
  const covered = new Map();
  let waiting = 0;

  const look = () => {
    waiting = 0;
    for (const [place, uncover] of covered) {
      // An output that is scrolled out of view is detached as a whole. An output that is rendered again has lost its
      // content.
      if (place.isConnected || place.parentElement) continue;
      covered.delete(place);
      uncover();
    }
    for (const place of places) if (!covered.has(place)) covered.set(place, cover(place, model, render));
  };

  // Delayed, because a front end adds many nodes at once.
  const watch = new MutationObserver(() => { waiting ||= setTimeout(look, 20); });
  const end = () => {
    watch.disconnect();
    clearTimeout(waiting);
    model.off("comm_live_update", end);
    for (const uncover of covered.values()) uncover();
    covered.clear();
  };
  watch.observe(document.body, { childList: true, subtree: true });
  model.on("comm_live_update", end); // the kernel was stopped or restarted
  look();
  return end;
}

/** Wrap a view class as an AFM module: `new View(model, el)` and `close()`. Only a notebook calls `initialize`. */
export function view(View) {
  const render = ({ model, el }) => {
    const shown = new View(model, el);
    return () => shown.close();
  };
  return { initialize: ({ model }) => mount(model, render), render };
}
