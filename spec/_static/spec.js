// Makes what scrolls reachable by keyboard. Reading needs none of this.
document.querySelectorAll("pre, .table-wrapper, .text_html").forEach((box) => {
  if (box.scrollWidth > box.clientWidth && !box.closest("[tabindex]")) box.tabIndex = 0;
});
// Two side bars of the theme have no name of their own.
document.querySelectorAll("aside:not([aria-label])").forEach((bar) => {
  bar.setAttribute("aria-label", bar.classList.contains("toc-drawer") ? "On this page" : "Site");
});
