/* Copies values, moves by keys, and goes on with what takes several requests. Every page works without it. */
"use strict";

(() => {
  document.documentElement.classList.add("scripted");

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) {
      return;
    }
    const text = button.parentElement.querySelector(".tree, pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    window.setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-every]")) {
      event.target.closest("table").querySelectorAll("input[name=id]").forEach((each) => {
        each.checked = event.target.checked;
      });
    }
  });

  // j and k go from row to row, / to the filter.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) {
      return;
    }
    if (event.key === "/") {
      document.querySelector("#page [role=search] input:not([type=hidden])")?.focus();
      event.preventDefault();
    } else if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll("#page tbody th a")];
      const at = rows.findIndex((each) => each.closest("tr").contains(document.activeElement));
      rows[Math.max(0, Math.min(rows.length - 1, event.key === "j" ? at + 1 : at - 1))]?.focus();
    }
  });

  // The line of a problem is chosen in the text.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-line]");
    const text = document.getElementById("source");
    if (link && text) {
      const lines = text.value.split("\n");
      const at = lines.slice(0, link.dataset.line - 1).join("\n").length + (link.dataset.line > 1 ? 1 : 0);
      event.preventDefault();
      text.focus();
      text.setSelectionRange(at, at + (lines[link.dataset.line - 1] ?? "").length);
      text.scrollTop = (link.dataset.line - 4) * text.scrollHeight / lines.length;
    }
  });

  const goesOn = document.querySelector("form[data-go-on]");
  if (goesOn) {
    window.setTimeout(() => goesOn.requestSubmit(), 300);
  }
})();
