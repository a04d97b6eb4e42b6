/*
 * Keeps the page of a running execution up to date. Without it the page works by being reloaded.
 *
 * It asks for the state as JSON: at once again after a change, less and less often while nothing
 * changes (the server then answers 304), not at all while the tab is hidden, and no more once the
 * execution has ended. What it gets becomes text and attributes, never HTML.
 */
"use strict";

(() => {
  const SOONEST = 1000;
  const LATEST = 15000;
  const root = document.querySelector("[data-progress]");
  if (!root) {
    return;
  }
  const rows = document.getElementById("automate-tracks");
  const blank = document.getElementById("automate-track-blank");
  const tones = { COMPLETED: "ok", FAILED: "bad", RETRY: "warn", PAUSED: "warn", CANCELLING: "warn", RUNNING: "run" };
  let wait = SOONEST;
  let etag = "";
  let timer = 0;
  let over = false;

  const field = (name) => document.querySelector(`[data-progress-field="${name}"]`);

  function set(element, text) {
    if (element && element.textContent !== text) {
      element.textContent = text;
    }
  }

  function showPart(name, text) {
    const part = document.querySelector(`[data-progress-part="${name}"]`);
    set(field(name), text || "");
    if (part && (text || name === "reasons")) {
      part.hidden = !text;
    }
  }

  function draw(row, track) {
    const part = (name) => row.querySelector(`[data-field="${name}"]`);
    row.dataset.key = track.key;
    row.dataset.depth = String(track.depth);
    row.dataset.tone = track.tone;
    for (const name of ["label", "attempts", "took", "after", "note"]) {
      set(part(name), track[name]);
    }
    set(part("action"), track.depth ? "" : track.action);
    set(part("status"), track.status);
    part("status").hidden = !track.status;
    part("status").dataset.tone = track.tone;
    if (track.url) {
      part("label").setAttribute("href", track.url);
    }
    set(part("tip"), track.after);
    const bar = part("bar");
    bar.dataset.tone = track.tone;
    bar.setAttribute("x", String(track.x));
    bar.setAttribute("width", String(track.width));
  }

  function drawAll(tracks) {
    const known = new Map(Array.from(rows.children, (row) => [row.dataset.key, row]));
    tracks.forEach((track, index) => {
      const row = known.get(track.key) || blank.content.firstElementChild.cloneNode(true);
      known.delete(track.key);
      draw(row, track);
      if (rows.children[index] !== row) {
        rows.insertBefore(row, rows.children[index] || null);
      }
    });
    known.forEach((row) => row.remove());
  }

  function show(state) {
    set(field("status"), state.status);
    field("status").dataset.tone = tones[state.status] || "";
    set(field("took"), state.took);
    set(field("axis"), state.took);
    drawAll(state.tracks);
    showPart("reasons", state.reasons);
    showPart("error", state.error);
    showPart("output", state.output);
    for (const part of document.querySelectorAll("[data-when]")) {
      part.hidden = !part.dataset.when.split(" ").includes(state.status);
    }
    if (state.finished) {
      over = true;
      set(field("live"), `Ended: ${state.status}.`);
    }
  }

  async function ask() {
    const headers = { Accept: "application/json" };
    if (etag) {
      headers["If-None-Match"] = etag;
    }
    const answer = await fetch(root.dataset.progress, { headers, cache: "no-store", redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      over = true; // to the login page
      set(field("live"), "Signed out. Reload the page.");
    } else if (answer.status === 304) {
      wait = Math.min(wait * 1.5, LATEST);
      set(field("live"), "");
    } else if (answer.ok) {
      set(field("live"), "");
      show(await answer.json());
      etag = answer.headers.get("ETag") || "";
      wait = SOONEST;
    } else if (answer.status === 403 || answer.status === 404) {
      over = true;
      set(field("live"), "It can't be seen any more. Reload the page.");
    } else {
      throw new Error(String(answer.status));
    }
  }

  async function turn() {
    timer = 0;
    try {
      await ask();
    } catch {
      wait = Math.min(wait * 2, LATEST);
      set(field("live"), "No connection; trying again.");
    }
    plan(wait);
  }

  function plan(after) {
    window.clearTimeout(timer);
    timer = over || document.hidden ? 0 : window.setTimeout(turn, after);
  }

  document.addEventListener("visibilitychange", () => plan(document.hidden ? 0 : 100));
  plan(SOONEST);
})();
