/** Steps of `npm run check` and `npm test`: static checks as commands, test families through node:test, one tally. */
import { spawn } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { run } from 'node:test';

export const root = resolve(import.meta.dirname, '..');

export interface Tally {
  passed: number;
  failed: number;
  /** Name of the test and its reason. */
  readonly skipped: string[];
}

interface StaticCheck {
  readonly name: string;
  readonly command: readonly string[];
}

/** Each counts as one test. */
const staticChecks: readonly StaticCheck[] = [
  { name: 'types', command: ['node_modules/typescript-native/bin/tsc', '--noEmit'] },
  { name: 'lint', command: ['node_modules/@biomejs/biome/bin/biome', 'lint', '--error-on-warnings', '.'] },
  {
    name: 'seams',
    command: [
      'node_modules/dependency-cruiser/bin/dependency-cruise.mjs', 'src', '--config', '.dependency-cruiser.mjs',
    ],
  },
  { name: 'unused', command: ['node_modules/knip/bin/knip.js', '--no-progress'] },
];

export interface Family {
  readonly name: string;
  /** Files that run at the same time; real machines run alone, so that they do not slow each other into time-outs. */
  readonly concurrency: number;
  /** One test that takes longer is stuck, ms. */
  readonly testMillisMax: number;
}

export const families: readonly Family[] = [
  { name: 'unit', concurrency: 2, testMillisMax: 60_000 },
  { name: 'sim', concurrency: 2, testMillisMax: 120_000 },
  { name: 'fuzz', concurrency: 2, testMillisMax: 120_000 },
  { name: 'attack', concurrency: 1, testMillisMax: 300_000 },
  { name: 'vm', concurrency: 1, testMillisMax: 300_000 },
];

/** Added to the longest test: a family that is silent for longer has a file whose process does not end, ms. */
const SILENCE_MILLIS = 30_000;

/** All at once; reported in their order. */
export async function runStaticChecks(tally: Tally): Promise<void> {
  const running = staticChecks.map(async ({ name, command }) => {
    const from = performance.now();
    const { status, output } = await capture(process.execPath, command);
    return { name, status, output, millis: performance.now() - from };
  });
  for (const { name, status, output, millis } of await Promise.all(running)) {
    count(tally, status === 0, name, millis);
    if (status !== 0) process.stdout.write(`${output}\n`);
  }
}

export async function runFamily(family: Family, tally: Tally, pattern: string | undefined): Promise<void> {
  const all = globSync(`test/${family.name}/**/*.test.ts`, { cwd: root }).sort();
  const files = all.filter((file) => pattern === undefined || file.includes(pattern)).map((file) => join(root, file));
  if (files.length === 0) return;
  const from = performance.now();
  const before = { ...tally, skipped: tally.skipped.length };
  const silence = new AbortController();
  const { concurrency, testMillisMax } = family;
  const unending = new Error('its tests are over, but something keeps its process alive');
  const watchdog = setTimeout(() => silence.abort(unending), testMillisMax + SILENCE_MILLIS);
  const stream = run({ files, concurrency, timeout: testMillisMax, signal: silence.signal });
  const failed = (name: string, file: string | undefined, line: number | undefined, why: string): void => {
    tally.failed += 1;
    const where = file === undefined ? '' : ` (${relative(root, file)}:${line ?? 0})`;
    process.stdout.write(`  not ok  ${name}${where}\n${indent(why)}\n`);
  };
  stream.on('test:pass', (event) => {
    watchdog.refresh();
    if (event.details.type === 'suite') return;
    const reason = event.skip ?? event.todo;
    // The runner lets a file without tests pass under the name of the file.
    if (event.name === event.file) failed(relative(root, event.file), event.file, event.line, 'there is no test in it');
    else if (reason === undefined) tally.passed += 1;
    else tally.skipped.push(`${event.name}: ${reason === true ? 'no reason given' : String(reason)}`);
  });
  stream.on('test:fail', (event) => {
    watchdog.refresh();
    // What failed below a suite or a parent test was counted there.
    if (event.details.type === 'suite' || isFailureOfChildren(event.details.error)) return;
    failed(event.name, event.file, event.line, errorText(event.details.error));
  });
  stream.on('test:stderr', (event) => process.stderr.write(event.message));
  await new Promise((settle) => stream.on('end', settle).resume());
  clearTimeout(watchdog);
  const counts = [tally.passed - before.passed, tally.failed - before.failed, tally.skipped.length - before.skipped];
  const what = `${family.name}: ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped`;
  report(tally.failed === before.failed, what, performance.now() - from);
}

/** Set-up, as one step: shown, because it may install and build for minutes. */
export async function runSetup(tally: Tally, env: NodeJS.ProcessEnv): Promise<void> {
  const from = performance.now();
  const child = spawn(process.execPath, ['scripts/setup.ts'], { cwd: root, stdio: 'inherit', env });
  const status = await new Promise((settle) => child.once('exit', settle));
  count(tally, status === 0, 'set-up', performance.now() - from);
}

/** Prints the closing lines; the exit code is for the whole. */
export function conclude(tally: Tally): number {
  for (const line of tally.skipped) process.stdout.write(`skipped  ${line}\n`);
  process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped\n`);
  return tally.failed > 0 || tally.passed === 0 ? 1 : 0;
}

function capture(program: string, args: readonly string[]): Promise<{ status: number; output: string }> {
  if (!existsSync(join(root, args[0] ?? ''))) return Promise.resolve({ status: 1, output: `${args[0]} is missing` });
  const env = { ...process.env, NO_COLOR: '1' };
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], env });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  return new Promise((settle) => child.once('close', (status) => settle({ status: status ?? 1, output })));
}

function count(tally: Tally, ok: boolean, what: string, millis: number): void {
  if (ok) tally.passed += 1;
  else tally.failed += 1;
  report(ok, what, millis);
}

function report(ok: boolean, what: string, millis: number): void {
  process.stdout.write(`${ok ? 'ok      ' : 'FAILED  '}${what} (${(millis / 1000).toFixed(1)} s)\n`);
}

function isFailureOfChildren(error: unknown): boolean {
  return error instanceof Error && 'failureType' in error && error.failureType === 'subtestsFailed';
}

function errorText(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}

function indent(text: string): string {
  return text.split('\n').map((line) => `          ${line}`).join('\n');
}
