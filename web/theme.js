// Before the first paint: the colours that were chosen on this device, if any were. Not a module, so that it runs then.
try {
    document.documentElement.dataset.theme = localStorage.getItem("tunnel.theme") ?? "auto";
} catch {
    document.documentElement.dataset.theme = "auto"; // no storage here
}
