/**
 * Command line of set-up and the only file of it that reads the environment and the clock.
 *
 *   node scripts/setup.ts [--home DIR] [--only STEP,…] [--verify] [--rebuild] [--prune] [--json]
 */
import { randomBytes } from 'node:crypto';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { asMayflyError, errorTable, MayflyError } from '../src/core/errors.ts';
import type { Clock } from '../src/core/time.ts';
import { lineDisplay, liveDisplay } from './setup/progress.ts';
import { setUp, stepNames } from './setup/setup.ts';
import type { SetUpDisplay } from './setup/setup.ts';

const root = resolve(dirname(import.meta.filename), '..');

const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => BigInt(Date.now()) * 1_000_000n,
  after: (millis, fire) => {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};

async function main(): Promise<void> {
  const options = parse();
  if (options.help) {
    process.stdout.write(`${usage(await stepNames(root))}\n`);
    return;
  }
  const interrupt = new AbortController();
  // Not `once`: signal-exit, below listr2, kills the process when it finds no listener but its own.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupt.abort());
  const began = clock.now();
  const home = resolve(options.home ?? process.env.MAYFLY_HOME ?? join(homedir(), '.mayfly'));
  const reports = await setUp(
    {
      root, home, clock,
      random: { bytes: (size) => randomBytes(size) },
      signal: interrupt.signal,
      euid: process.geteuid?.() ?? -1,
      execPath: process.execPath,
      interactive: process.stdin.isTTY && process.stdout.isTTY,
      verify: options.verify,
      rebuild: options.rebuild,
      prune: options.prune,
      ...(options.only === undefined ? {} : { only: options.only.split(',') }),
    },
    display(options.json),
  );
  if (options.json) process.stdout.write(`${JSON.stringify({ home, steps: reports }, null, 2)}\n`);
  else process.stdout.write(`Mayfly is set up in ${home} (${((clock.now() - began) / 1000).toFixed(1)} s).\n`);
}

function display(json: boolean): SetUpDisplay {
  const write = (line: string): void => void process.stderr.write(`${line}\n`);
  // A terminal that does not know its width would get one letter per line.
  const live = !json && process.stdout.isTTY && process.stdout.columns > 0;
  return live ? liveDisplay(write) : lineDisplay(write);
}

interface Options {
  readonly help: boolean;
  readonly json: boolean;
  readonly verify: boolean;
  readonly rebuild: boolean;
  readonly prune: boolean;
  readonly home: string | undefined;
  readonly only: string | undefined;
}

function parse(): Options {
  try {
    const { values } = parseArgs({
      options: {
        help: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        verify: { type: 'boolean', default: false },
        rebuild: { type: 'boolean', default: false },
        prune: { type: 'boolean', default: false },
        home: { type: 'string' },
        only: { type: 'string' },
      },
    });
    return { ...values, home: values.home, only: values.only };
  } catch (cause) {
    const remedy = 'Run `npm run setup -- --help` for the options that there are.';
    throw new MayflyError('E_USAGE', (cause as Error).message, { cause, remedy });
  }
}

function usage(steps: readonly string[]): string {
  return `Usage: npm run setup -- [options]

Installs and builds what Mayfly needs; does nothing when all is there.

  --home DIR      where to keep it (MAYFLY_HOME, else ~/.mayfly)
  --only STEP,…   only these steps: ${steps.join(', ')}
  --verify        read every artefact completely and build damaged ones again
  --rebuild       build again also what is current, from the newest packages
  --prune         remove artefacts that nothing uses any more; while no mayfly is running
  --json          a report on stdout, progress on stderr`;
}

try {
  await main();
} catch (thrown) {
  const error = asMayflyError(thrown);
  const lines = [`${error.code}: ${error.message}`, `  ${error.remedy}`];
  if (error.detail !== undefined) lines.push('', error.detail);
  process.stderr.write(`${lines.join('\n')}\n`);
  process.exitCode = errorTable[error.code].exit;
}
