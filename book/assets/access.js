// Formulas that are wider than the page scroll; whoever reads by keyboard reaches them by Tab, as the theme does it for code.
document.addEventListener("DOMContentLoaded", () => {
  const mark = () => {
    for (const formula of document.querySelectorAll("mjx-container[display]")) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  window.addEventListener("resize", mark);
  // What is unfolded has a size only then.
  document.addEventListener("toggle", mark, true);
  document.addEventListener("click", () => requestAnimationFrame(mark));
  window.MathJax?.startup?.promise?.then(mark);
});
