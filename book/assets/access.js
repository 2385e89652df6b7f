// Formulas that are wider than the page scroll; whoever reads by keyboard reaches them by Tab, as the theme does it for code.
document.addEventListener("DOMContentLoaded", () => {
  const mark = (formula) => {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  };
  // A formula and what it holds: windows are resized, proofs unfolded, and letters arrive late.
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) mark(target.closest("mjx-container"));
  });
  window.MathJax?.startup?.promise?.then(() => {
    for (const formula of document.querySelectorAll("mjx-container[display]")) {
      observer.observe(formula);
      if (formula.firstElementChild) observer.observe(formula.firstElementChild);
    }
  });
});
