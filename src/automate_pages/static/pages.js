/* Looks again at a page that changes by itself. Every page works without it, by a reload. */
"use strict";

(() => {
  const SOONEST = 1500;
  const LATEST = 15000;
  const page = document.querySelector("#page[data-live]");
  const told = document.getElementById("live");
  if (!page) {
    return;
  }
  let wait = SOONEST;
  let seen = "";
  let timer = 0;
  let stream = null;
  let looking = false;
  let over = false;

  // A box has the value "on" whatever is done to it.
  const changed = (each) => (["checkbox", "radio"].includes(each.type)
    ? each.checked !== each.defaultChecked
    : each.value !== each.defaultValue);

  const busy = () => document.hidden || !window.getSelection().isCollapsed
    || page.querySelector(":focus, details[open]") !== null
    || [...page.querySelectorAll("input, textarea")].some(changed);

  const scrollers = () => [...page.querySelectorAll("pre, .scroll, .tree, .panel")];

  const isTold = () => stream !== null && stream.readyState === EventSource.OPEN;

  async function look() {
    const answer = await fetch(location.href, {
      headers: { "X-Automate-Part": "1" }, cache: "no-store", redirect: "manual",
    });
    if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
      told.textContent = "You are signed out. Reload the page.";
      return false;
    }
    if (!answer.ok || answer.headers.get("X-Automate-Part") === null) {
      throw new Error(String(answer.status));
    }
    const html = await answer.text();
    // Ages grow all the time, which is no change.
    const without = html.replace(/<time[^>]*>[^<]*/g, "");
    const differs = without !== seen;
    if (!busy()) {
      const places = scrollers().map((each) => [each.scrollLeft, each.scrollTop]);
      // What the server sends here is the same HTML that a reload would show.
      page.innerHTML = html;
      scrollers().forEach((each, at) => each.scrollTo(...(places[at] ?? [0, 0])));
      seen = without;
    }
    wait = differs ? SOONEST : Math.min(wait * 1.5, LATEST);
    told.textContent = "";
    return answer.headers.get("X-Automate-Part") !== "ended";
  }

  async function turn() {
    if (over || looking) {
      return;
    }
    looking = true;
    window.clearTimeout(timer);
    if (!busy()) {
      try {
        over = !await look();
      } catch {
        wait = Math.min(wait * 2, LATEST);
        told.textContent = "No connection. Trying again.";
      }
    }
    looking = false;
    if (over) {
      quiet();
    } else {
      // Polling is what counts; while the server tells of changes, it is only in reserve.
      timer = window.setTimeout(turn, isTold() && !busy() ? LATEST : wait);
    }
  }

  function listen() {
    if (stream === null && !over && !document.hidden) {
      stream = new EventSource(location.href);
      stream.onmessage = turn;
      // After a break nobody has told what happened meanwhile.
      stream.onopen = turn;
    }
  }

  // A browser has few connections for each server: a tab that nobody sees needs none.
  function quiet() {
    stream?.close();
    stream = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      quiet();
    } else {
      listen();
      turn();
    }
  });
  window.addEventListener("pagehide", quiet);
  window.addEventListener("pageshow", listen);
  timer = window.setTimeout(turn, SOONEST);
  listen();
})();
