/*
 * What the pages do beyond HTML. Every page works without it.
 *
 * data-poll="URL"      the element's content is fetched again every data-every milliseconds, while
 *                      the page is visible and nothing in it has the focus. The answer must carry
 *                      X-Automate-Fragment; "stop" ends the polling.
 * data-continue        the form is sent by itself after data-continue milliseconds.
 * data-all             a checkbox that ticks all others of its form; data-count shows how many.
 */
"use strict";

(() => {
  const SLOWEST = 60000;

  function poll(element) {
    const every = Number(element.dataset.every) || 5000;
    const note = document.querySelector(`[data-live-for="${element.id}"]`);
    let wait = every;

    function say(state, text) {
      if (note) {
        note.dataset.state = state;
        note.textContent = text;
      }
    }

    function busy() {
      return document.hidden || element.contains(document.activeElement)
        || element.querySelector("input:checked, details[open]") !== null;
    }

    async function refresh() {
      const response = await fetch(element.dataset.poll, {
        credentials: "same-origin",
        headers: { "X-Requested-With": "XMLHttpRequest" },
      });
      const mark = response.headers.get("X-Automate-Fragment");
      if (response.ok && mark === null) {
        // The login page, most likely: never to be shown inside this one.
        say("failed", "Signed out. Reload the page.");
        return false;
      }
      if (!response.ok) {
        throw new Error(String(response.status));
      }
      const html = await response.text();
      if (!busy()) {
        element.innerHTML = html;
        say("live", `Updated ${new Date().toLocaleTimeString()}`);
      }
      return mark !== "stop";
    }

    async function turn() {
      let more = true;
      if (!busy()) {
        try {
          more = await refresh();
          wait = every;
        } catch {
          wait = Math.min(wait * 2, SLOWEST);
          say("failed", "No connection; trying again.");
        }
      }
      if (more) {
        window.setTimeout(turn, wait);
      }
    }

    window.setTimeout(turn, element.hasAttribute("data-now") ? 0 : wait);
  }

  function proceed(form) {
    window.setTimeout(() => form.requestSubmit(), Number(form.dataset.continue) || 0);
  }

  function selectAll(box) {
    const form = box.form;
    const boxes = () => form.querySelectorAll(`input[type="checkbox"][name="${box.dataset.all}"]`);
    const show = () => {
      const ticked = Array.from(boxes()).filter((each) => each.checked).length;
      for (const place of form.querySelectorAll("[data-count]")) {
        place.textContent = ticked ? `${ticked} selected` : "";
      }
    };
    box.addEventListener("change", () => {
      for (const each of boxes()) {
        each.checked = box.checked;
      }
      show();
    });
    form.addEventListener("change", show);
    show();
  }

  function reveal(tab) {
    // On a phone the tabs are wider than the screen.
    const list = tab.closest("nav");
    list.scrollLeft = tab.offsetLeft - (list.clientWidth - tab.offsetWidth) / 2;
  }

  document.querySelectorAll('.automate-nav [aria-current="page"]').forEach(reveal);
  document.querySelectorAll("[data-poll]").forEach(poll);
  document.querySelectorAll("form[data-continue]").forEach(proceed);
  document.querySelectorAll("[data-all]").forEach(selectAll);
})();
