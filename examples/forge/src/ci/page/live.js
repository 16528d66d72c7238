// Swaps every part of the page that has changed, when the server says that something has.
"use strict";
const pill = document.querySelector(".live");
let busy = false, again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const reply = await fetch(location.href, { headers: { accept: "text/html" } });
    if (reply.ok) swap(new DOMParser().parseFromString(await reply.text(), "text/html"));
  } catch (_) { /* The stream tells when the server is back. */ }
  busy = false;
  if (again) { again = false; refresh(); }
}

function swap(fresh) {
  const parts = document.querySelectorAll("[data-part]");
  if (parts.length !== fresh.querySelectorAll("[data-part]").length) {
    document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
    return;
  }
  for (const old of parts) {
    const now = fresh.querySelector(`[data-part="${old.dataset.part}"]`);
    if (!now || now.isEqualNode(old)) continue;
    const end = old.scrollHeight - old.scrollTop - old.clientHeight < 40;
    const at = old.scrollTop;
    old.replaceWith(document.adoptNode(now));
    now.scrollTop = end ? now.scrollHeight : at;
  }
}

const stream = new EventSource("/-/live");
stream.onmessage = refresh;
stream.onopen = () => { pill.classList.remove("lost"); pill.textContent = "live"; refresh(); };
stream.onerror = () => { pill.classList.add("lost"); pill.textContent = "reconnecting"; };
const log = document.querySelector("pre[data-part=log]");
if (log) log.scrollTop = log.scrollHeight;
