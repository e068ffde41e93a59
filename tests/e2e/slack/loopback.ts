// The emulator listens on all interfaces and takes any token; here it listens to this machine alone.
const serve = Bun.serve;
Bun.serve = ((options: any) => serve.call(Bun, { ...options, hostname: "127.0.0.1" })) as typeof Bun.serve;
