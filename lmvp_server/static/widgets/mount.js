// Lays a live view over the static form that a notebook shows and saves.
//
// An output that is a widget is "model not found" once the notebook is opened without its kernel, whatever else the
// output holds. So what is shown is the static form alone, in an element that names the widget's place, and the view
// comes by itself: a front end makes the model of a widget as soon as the kernel opens it, and its `initialize` calls
// `mount`. Where nobody calls it (a saved page, an editor that makes no models) the static form is what there is.

const HOST = "jp-RenderedHTMLCommon";

/** Cover one place; gives a function that brings the static form back, which also stays if the view cannot be drawn. */
function cover(place, model, render) {
  const still = [...place.children];
  const host = place.closest(`.${HOST}`);
  const el = place.appendChild(document.createElement("div"));
  const show = (live) => {
    for (const child of still) child.style.display = live ? "none" : "";
    host?.classList.toggle(HOST, !live); // its rules are for tables in prose: stripes, centred cells
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

/** Cover every place of this widget, now and when an output is drawn later; gives the function that ends it. */
export function mount(model, render) {
  const places = document.getElementsByClassName(model.get("place"));
  const covered = new Map();
  let waiting = 0;

  const look = () => {
    waiting = 0;
    for (const [place, uncover] of covered) {
      // An output that scrolled out of sight is taken out as a whole; one that was drawn anew has lost its content.
      if (place.isConnected || place.parentElement) continue;
      covered.delete(place);
      uncover();
    }
    for (const place of places) if (!covered.has(place)) covered.set(place, cover(place, model, render));
  };

  const watch = new MutationObserver(() => { waiting ||= setTimeout(look, 20); });
  const end = () => {
    watch.disconnect();
    clearTimeout(waiting);
    model.off("comm_live_update", end);
    for (const uncover of covered.values()) uncover();
    covered.clear();
  };
  watch.observe(document.body, { childList: true, subtree: true });
  model.on("comm_live_update", end); // the kernel has gone or was started anew
  look();
  return end;
}

/** A view class as an AFM module: `new View(model, el)`, with `close()`. Only a notebook calls `initialize`. */
export function view(View) {
  const render = ({ model, el }) => {
    const shown = new View(model, el);
    return () => shown.close();
  };
  return { initialize: ({ model }) => mount(model, render), render };
}
