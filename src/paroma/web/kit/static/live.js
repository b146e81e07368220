// A page that refreshes itself must not disturb its reader: what has not changed stays as it is (so nothing is announced or
// glows twice), and after a change the same tables are open and the same control has the focus.
"use strict";
{
  const PLACES = "a, button, summary, input";
  let shown = "";
  let open = [];
  let focus = -1;
  const live = () => document.getElementById("live");
  const places = () => Array.from(live().querySelectorAll(PLACES));

  document.addEventListener("htmx:beforeSwap", (event) => {
    const text = event.detail.serverResponse;
    if (text === shown) {
      event.detail.shouldSwap = false;
      return;
    }
    shown = text;
    open = Array.from(live().querySelectorAll("details"), (one) => one.open);
    focus = places().indexOf(document.activeElement);
  });

  document.addEventListener("htmx:afterSwap", () => {
    live().querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? false; });
    if (focus >= 0) places()[focus]?.focus({ preventScroll: true });
  });
}
