/**
 * The composition root: the only file that touches the environment, the wall clock, real randomness and the exit code.
 * Everything else is given what it needs.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import type { App } from './app.ts';
import { readAtMost } from './cli/input.ts';
import type { Io } from './cli/io.ts';
import { reportCrash, runProgram } from './cli/program.ts';
import { exitCodes } from './core/errors.ts';
import type { Random } from './core/random.ts';
import type { Clock } from './core/time.ts';

const packageFolder = resolve(import.meta.dirname, '..');

const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => BigInt(Date.now()) * 1_000_000n,
  after(millis, fire) {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};

const random: Random = { bytes: (size) => randomBytes(size) };

async function openApp(): Promise<App> {
  const [{ openApp: open }, { createDisk }, { createProcesses }] = await Promise.all([
    import('./app.ts'), import('./core/disk.ts'), import('./release/processes.ts'),
  ]);
  const home = resolve(process.env['MAYFLY_HOME'] || join(homedir(), '.mayfly'));
  const euid = process.geteuid?.() ?? -1;
  const environment = (name: string): string | undefined => process.env[name];
  const [disk, processes] = [createDisk(), createProcesses()];
  return await open({ home, clock, random, disk, processes, euid, pid: process.pid, environment });
}

/** Exit codes of processes that a signal has ended, as shells count them. */
const SIGNALS = { SIGINT: exitCodes.interrupted, SIGTERM: 143, SIGHUP: 129 } as const;

/** The first signal ends the run cleanly; the second one ends this process, and the VMs die with it. */
function interruption(): { readonly signal: AbortSignal; exitCode(code: number): number } {
  const abort = new AbortController();
  let received: number | undefined;
  for (const [name, code] of Object.entries(SIGNALS)) {
    process.on(name, () => {
      if (received !== undefined) process.exit(code);
      received = code;
      abort.abort();
    });
  }
  return { signal: abort.signal, exitCode: (code) => (code === exitCodes.interrupted ? (received ?? code) : code) };
}

function versionOfPackage(): string {
  return (JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8')) as { version: string }).version;
}

// A reader that has gone away, as `mayfly … | head` does, is no reason to die before the run is released.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

const { signal, exitCode } = interruption();
const io: Io = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  outIsTerminal: process.stdout.isTTY === true,
  errIsTerminal: process.stderr.isTTY === true,
  colour: process.stderr.isTTY === true && (process.env['NO_COLOR'] ?? '') === '',
  readInput: (bytesMax) => readAtMost(process.stdin, { bytesMax, signal }),
  signal,
  now: () => clock.now(),
  wallNanos: () => clock.wallNanos(),
  openApp,
  examples: join(packageFolder, 'examples'),
  version: versionOfPackage(),
};

// Not reached by anything that is known. Exit status 1 would blame the function.
process.on('uncaughtException', (thrown) => {
  reportCrash(io, thrown);
  process.exit(exitCodes.internal);
});

process.exitCode = exitCode(await runProgram(io, process.argv.slice(2)));
