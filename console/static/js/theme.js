// Runs before the first paint: light or dark, from the reader's choice or else the system's.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("offhook-theme"); } catch { return null; } };
  const apply = () => {
    document.documentElement.dataset.theme = stored() || (system.matches ? "dark" : "light");
    dispatchEvent(new Event("themechange"));
  };
  system.addEventListener("change", apply);
  window.switchTheme = () => {
    try { localStorage.setItem("offhook-theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark"); } catch { /* private window */ }
    apply();
  };
  apply();
})();
