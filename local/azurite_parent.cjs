// Loaded before Azurite (node --require): ends it in good order when standard input closes, which
// also happens whenever the Python process that started it ends. It works on Windows too, where
// no signal lets a process end in good order.
process.stdin.on("end", () => process.emit("SIGTERM"));
process.stdin.resume();
process.stdin.unref();
