// When the page is drawn: no response is awaited, and nothing has changed for a while.
const POLL = 50;
/** Number of polls without a change. A busy page polls less often, so it counts polls instead of milliseconds. */
const QUIET_POLLS = 12;

const { fetch: originalFetch } = window;
let open = 0;
let changes = 0;

window.fetch = async (...request) => {
  open += 1;
  try {
    return await originalFetch(...request);
  } finally {
    open -= 1;
    changes += 1;
  }
};
new MutationObserver(() => (changes += 1)).observe(document, {
  attributes: true,
  characterData: true,
  childList: true,
  subtree: true,
});

export async function whenSettled() {
  let seen;
  for (let quiet = 0; quiet < QUIET_POLLS;) {
    quiet = open === 0 && changes === seen ? quiet + 1 : 0;
    seen = changes;
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}
