// Loaded before Azurite (node --require): ends it in good order when standard input closes, which
// also happens when the Python process that started it dies, in whatever way. Works on Windows,
// where there is no signal to end a process with that it could answer.
process.stdin.on("end", () => process.emit("SIGTERM"));
process.stdin.resume();
process.stdin.unref();
