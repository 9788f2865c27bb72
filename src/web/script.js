// Keeps the page new. Without this script the page is the same, only older.
"use strict";

const INTERVAL_MS = 2000;
const TIMEOUT_MS = 8000;

// Replaces only what changed, so that neither a selection nor a scroll position is lost for nothing.
function takeOver(fresh) {
  document.title = fresh.title;
  for (const part of fresh.querySelectorAll("main > section, #when, header .task")) {
    const old = part.id ? document.getElementById(part.id) : document.querySelector("header .task");
    if (!old || old.outerHTML === part.outerHTML || isSelected(old)) {
      continue;
    }
    const scrolled = new Map();
    for (const box of old.querySelectorAll("pre[id]")) {
      scrolled.set(box.id, box.scrollTop);
    }
    old.replaceWith(part);
    for (const [id, top] of scrolled) {
      const box = document.getElementById(id);
      if (box) {
        box.scrollTop = top;
      }
    }
    showButtons(part);
  }
}

function isSelected(element) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && selection.containsNode(element, true);
}

function showLost(lost) {
  const note = document.getElementById("lost");
  if (lost && note.hidden) {
    document.getElementById("lost-when").textContent = document.getElementById("when").textContent;
  }
  if (lost) {
    // A tab in the background must not go on saying yes.
    document.title = "Not reached · rowproof";
  }
  note.hidden = !lost;
  document.body.classList.toggle("is-lost", lost);
}

async function refresh() {
  try {
    const response = await fetch(location.pathname + location.search, {
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) {
      throw new Error("status " + response.status);
    }
    const text = await response.text();
    takeOver(new DOMParser().parseFromString(text, "text/html"));
    showLost(false);
  } catch {
    showLost(true);
  }
  setTimeout(refresh, INTERVAL_MS);
}

function showButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) {
    return;
  }
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed to copy";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

showButtons(document);
setTimeout(refresh, INTERVAL_MS);
