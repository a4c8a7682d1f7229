/**
 * The fuzzer's command line. `node test/fuzz/run.ts [--target NAME] [--seconds 10] [--seed N] [--repro FILE]`
 *
 * Without a target each one gets the seconds. A crash is saved under `.test-home/fuzz/` and ends the run with status 1;
 * `--target NAME --repro FILE` runs one saved input again.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { crashOf, fuzz } from './fuzzer.ts';
import type { Crash } from './fuzzer.ts';
import { canary, targets } from './registry.ts';
import type { FuzzTarget } from './target.ts';

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    seconds: { type: 'string', default: '10' },
    seed: { type: 'string' },
    repro: { type: 'string' },
  },
});

const known: Readonly<Record<string, FuzzTarget>> = { ...targets, canary };

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function targetOf(name: string): FuzzTarget {
  const target = Object.hasOwn(known, name) ? known[name] : undefined;
  if (target === undefined) throw new Error(`no target ${name}; there are: ${Object.keys(known).join(', ')}`);
  return target;
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function save(name: string, { seed, input, error }: Crash): void {
  const folder = new URL('../../.test-home/fuzz/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  const file = new URL(`${name}-${seed}.bin`, folder);
  writeFileSync(file, input);
  say(`${name}: CRASH, seed ${seed}, ${input.length} bytes\n${describe(error)}`);
  say(`again: node test/fuzz/run.ts --target ${name} --repro .test-home/fuzz/${name}-${seed}.bin`);
}

async function repeat(name: string, file: string): Promise<boolean> {
  const error = await crashOf(targetOf(name), readFileSync(file));
  say(error === undefined ? `${name}: ${file} does not crash` : `${name}: ${file} crashes\n${describe(error)}`);
  return error === undefined;
}

async function run(name: string, seed: number, seconds: number): Promise<boolean> {
  say(`${name}: seed ${seed}`);
  const until = performance.now() + seconds * 1000;
  const { iterations, crash } = await fuzz({ target: targetOf(name), seed, goOn: () => performance.now() < until });
  say(`${name}: ${iterations} inputs in ${seconds} s, ${crash === undefined ? 'no crash' : 'one crash'}`);
  if (crash !== undefined) save(name, crash);
  return crash === undefined;
}

async function main(): Promise<boolean> {
  if (values.repro !== undefined) {
    if (values.target === undefined) throw new Error('--repro needs --target');
    return await repeat(values.target, values.repro);
  }
  const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed);
  let clean = true;
  for (const name of values.target === undefined ? Object.keys(targets) : [values.target]) {
    clean = await run(name, seed, Number(values.seconds)) && clean;
  }
  return clean;
}

process.exitCode = await main() ? 0 : 1;
