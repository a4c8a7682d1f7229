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
    command: ['node_modules/dependency-cruiser/bin/dependency-cruise.mjs', 'src', '--config', '.dependency-cruiser.mjs'],
  },
  { name: 'unused', command: ['node_modules/knip/bin/knip.js', '--no-progress'] },
];

export interface Family {
  readonly name: string;
  /** Files that run at the same time; real machines run alone, so that they do not slow each other into time-outs. */
  readonly concurrency: number;
}

export const families: readonly Family[] = [
  { name: 'unit', concurrency: 2 },
  { name: 'sim', concurrency: 2 },
  { name: 'fuzz', concurrency: 2 },
  { name: 'attack', concurrency: 1 },
  { name: 'vm', concurrency: 1 },
];

/** One test that takes longer is stuck, ms. */
const TEST_MILLIS_MAX = 300_000;

export async function runStaticChecks(tally: Tally): Promise<void> {
  for (const { name, command } of staticChecks) {
    const from = performance.now();
    const { status, output } = await capture(process.execPath, command);
    report(status === 0, name, from);
    if (status === 0) tally.passed += 1;
    else {
      tally.failed += 1;
      process.stdout.write(`${output}\n`);
    }
  }
}

export async function runFamily(family: Family, tally: Tally, pattern: string | undefined): Promise<void> {
  const all = globSync(`test/${family.name}/**/*.test.ts`, { cwd: root }).sort();
  const files = all.filter((file) => pattern === undefined || file.includes(pattern)).map((file) => join(root, file));
  if (files.length === 0) return;
  const from = performance.now();
  const before = { ...tally, skipped: tally.skipped.length };
  const stream = run({ files, concurrency: family.concurrency, timeout: TEST_MILLIS_MAX });
  stream.on('test:pass', (event) => {
    if (event.details.type === 'suite') return;
    const reason = event.skip ?? event.todo;
    if (reason === undefined) tally.passed += 1;
    else tally.skipped.push(`${event.name}: ${reason === true ? 'no reason given' : String(reason)}`);
  });
  stream.on('test:fail', (event) => {
    if (event.details.type === 'suite') return;
    tally.failed += 1;
    const where = event.file === undefined ? '' : ` (${relative(root, event.file)}:${event.line ?? 0})`;
    process.stdout.write(`  not ok  ${event.name}${where}\n${indent(errorText(event.details.error))}\n`);
  });
  stream.on('test:stderr', (event) => process.stderr.write(event.message));
  await new Promise((settle) => stream.on('end', settle).resume());
  const [passed, failed] = [tally.passed - before.passed, tally.failed - before.failed];
  const skipped = tally.skipped.length - before.skipped;
  report(failed === 0, `${family.name}: ${passed} passed, ${failed} failed, ${skipped} skipped`, from);
}

/** Prints the closing lines; the exit code is for the whole. */
export function conclude(tally: Tally): number {
  for (const line of tally.skipped) process.stdout.write(`skipped  ${line}\n`);
  process.stdout.write(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped\n`);
  return tally.failed > 0 || tally.passed === 0 ? 1 : 0;
}

/** Runs a command that the reader should see, as set-up is. */
export function runShown(command: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const child = spawn(process.execPath, command, { cwd: root, stdio: 'inherit', env });
  return new Promise((settle) => child.once('exit', (status) => settle(status ?? 1)));
}

function capture(program: string, args: readonly string[]): Promise<{ status: number; output: string }> {
  if (!existsSync(join(root, args[0] ?? ''))) return Promise.resolve({ status: 1, output: `${args[0]} is missing` });
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NO_COLOR: '1' } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  return new Promise((settle) => child.once('close', (status) => settle({ status: status ?? 1, output })));
}

function report(ok: boolean, what: string, from: number): void {
  process.stdout.write(`${ok ? 'ok      ' : 'FAILED  '}${what} (${((performance.now() - from) / 1000).toFixed(1)} s)\n`);
}

function errorText(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}

function indent(text: string): string {
  return text.split('\n').map((line) => `          ${line}`).join('\n');
}
