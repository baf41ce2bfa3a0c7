// "/" goes to the filter of a page.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const filter = document.querySelector("input[type=search]");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  }
});

// On a narrow screen the list of pages is wider than it: the one that is open is to be seen.
const show = (tries) => {
  const here = document.querySelector(".side .here");
  if (here) here.scrollIntoView({ inline: "center", block: "nearest" });
  else if (tries) setTimeout(show, 50, tries - 1);
};
show(60);
