/**
 * Real `kill -9` of `mayfly run`, at moments spread over the whole of a run: from spawn to seal and a little beyond,
 * and sometimes while a template is being built. Goal (G1, G2): no VMM, no file outside the cache and no mount is left
 * by the next start that lives, every accepted event has exactly one record, and the chain holds. Method: the real
 * command line as a process; a look at process table, files and mounts that shares no code with the product.
 *
 *   npm run soak -- --kill 100 [--seed 1]
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface KillOptions {
  /** MAYFLY_HOME; its templates are there. */
  readonly home: string;
  readonly rounds: number;
  readonly seed: number;
  /** Also kills builders of templates, in one round of `buildEvery`; 0: never. */
  readonly buildEvery: number;
  readonly say: (line: string) => void;
}

export interface KillReport {
  /** Killed while alive; the others had already ended. */
  readonly killed: number;
  /** Of these, how many had accepted their event, and had not sealed it. */
  readonly abandoned: number;
  /** From the kill to the end of the last VMM, ms. */
  readonly machineMillis: readonly number[];
  /** A start after kills, with its own event, ms. */
  readonly recoveryMillis: readonly number[];
  readonly records: number;
  readonly failures: readonly string[];
}

const root = join(import.meta.dirname, '../..');
/** A VMM has to be gone this soon after its parent, ms. */
const MACHINE_MILLIS_MAX = 5_000;
/** A start that lives comes after every so many kills: in between, recovery itself is killed. */
const KILLS_PER_START = 3;

export async function killRounds({ home, rounds, seed, buildEvery, say }: KillOptions): Promise<KillReport> {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-kill-'));
  const program = join(folder, 'f.sh');
  writeFileSync(program, '#!/bin/sh\nread event\nsleep 0.2\necho "$event"\n');
  chmodSync(program, 0o755);
  const failures: string[] = [];
  const accepted = new Set<string>();
  const report = { killed: 0, abandoned: 0, machineMillis: [] as number[], recoveryMillis: [] as number[] };

  const start = (...options: string[]): ChildProcess => {
    const args = ['run', '--exec', program, '--accel', 'tcg', '--json', ...options];
    const env = { ...process.env, MAYFLY_HOME: home, TMPDIR: folder };
    return spawn(join(root, 'bin/mayfly'), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  };
  /** A run to its end; its duration, ms. */
  const live = async (what: string): Promise<number> => {
    const from = performance.now();
    const { code, out, err } = await ended(start());
    const answer = parsed(out);
    if (code !== 0 || answer['ok'] !== true) failures.push(`${what}: exit ${code}: ${err.slice(-500)}`);
    if (typeof answer['runId'] === 'string') accepted.add(answer['runId']);
    return performance.now() - from;
  };

  await live('the first run');
  const before = { ...lookAround(home), records: recordsOf(home).length };
  const usual = Math.min(await live('the second run'), await live('the third run'));
  const moments = shuffled(Array.from({ length: rounds }, (_, index) => (index + 0.5) / rounds), seed);
  for (const [round, moment] of moments.entries()) {
    const building = buildEvery > 0 && round % buildEvery === buildEvery - 1;
    // Another amount of RAM has another template; a build takes many times as long as a run.
    const child = building ? start('--memory', `${512 + round}M`) : start();
    const over = ended(child);
    const delay = moment * usual * (building ? 8 : 1.15);
    await new Promise((resolve) => setTimeout(resolve, delay));
    const wasAlive = child.exitCode === null && child.kill('SIGKILL');
    const from = performance.now();
    const { out } = await over;
    if (wasAlive && child.signalCode === 'SIGKILL') report.killed++;
    else if (parsed(out)['ok'] !== true) failures.push(`round ${round}: ended by itself, badly: ${out.slice(0, 300)}`);
    while (lookAround(home).machines.length > 0 && performance.now() - from < MACHINE_MILLIS_MAX) await pause(5);
    report.machineMillis.push(performance.now() - from);
    const { machines } = lookAround(home);
    if (machines.length > 0) failures.push(`round ${round} at ${Math.round(delay)} ms: VMMs ${machines.join(', ')}`);
    for (const runId of acceptedRuns(home)) {
      if (!accepted.has(runId)) report.abandoned++;
      accepted.add(runId);
    }
    const last = round === moments.length - 1;
    if (!last && round % KILLS_PER_START !== KILLS_PER_START - 1) continue;
    report.recoveryMillis.push(await live(`the start after round ${round}`));
    const after = lookAround(home);
    for (const kind of ['machines', 'files', 'mounts'] as const) {
      const left = after[kind].filter((item) => !before[kind].includes(item));
      if (left.length > 0) failures.push(`after round ${round}, ${kind}: ${left.slice(0, 5).join(', ')}`);
    }
    if (failures.length > 20) break;
    if (last || (round + 1) % 20 < KILLS_PER_START) say(`kill: ${round + 1} of ${rounds}, ${failures.length} failures`);
  }
  const strangers = readdirSync(folder).filter((name) => name !== 'f.sh');
  if (strangers.length > 0) failures.push(`left in the temporary folder: ${strangers.join(', ')}`);
  rmSync(folder, { recursive: true, force: true });

  const records = recordsOf(home);
  failures.push(...chainFaults(home));
  for (const runId of accepted) {
    const count = records.filter((record) => record['runId'] === runId).length;
    if (count !== 1) failures.push(`run ${runId} was accepted and has ${count} records`);
  }
  return { ...report, records: records.length - before.records, failures };
}

// ---- an independent look ----------------------------------------------------------------------------------------

interface Surroundings {
  readonly machines: readonly string[];
  readonly files: readonly string[];
  readonly mounts: readonly string[];
}

/** What is kept on purpose, by its place in MAYFLY_HOME; half a template is not, once another start has lived. */
const CACHE = /^(artefacts|store|cache|images|keys|intel|templates\/(?!building-))(\/|$)|^templates\/[^/]+$|\.lock$/;
const KEPT = new Set([
  'evidence/evidence.jsonl', 'evidence/lock', 'accelerator.json', 'qemu.json', 'setup.lock',
]);

function lookAround(home: string): Surroundings {
  const machines = names('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid) || !link(`/proc/${pid}/exe`).includes('qemu-system')) return false;
    return names(`/proc/${pid}/fd`).some((descriptor) => link(`/proc/${pid}/fd/${descriptor}`).startsWith(`${home}/`));
  });
  const files = readdirSync(home, { recursive: true, encoding: 'utf8', withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name).slice(home.length + 1))
    .filter((path) => !CACHE.test(path) && !KEPT.has(path));
  return { machines, files, mounts: readFileSync('/proc/self/mounts', 'utf8').split('\n') };
}

/** Runs whose journal says that they were accepted: the first line is whole and of that kind. */
function acceptedRuns(home: string): string[] {
  return names(join(home, 'run')).filter((name) => {
    const journal = contents(join(home, 'run', name, 'journal'));
    const end = journal.indexOf('\n');
    return end !== -1 && journal.slice(0, end).includes('"kind":"accepted"');
  });
}

function recordsOf(home: string): readonly Readonly<Record<string, unknown>>[] {
  return contents(join(home, 'evidence/evidence.jsonl')).split('\n').filter((line) => line !== '').map(parsed);
}

function chainFaults(home: string): string[] {
  const lines = contents(join(home, 'evidence/evidence.jsonl')).split('\n').slice(0, -1);
  return lines.flatMap((line, index) => {
    const before = lines[index - 1];
    const hash = before === undefined ? '0'.repeat(64) : createHash('sha256').update(before).digest('hex');
    const { sequence, previous } = parsed(line);
    const whole = sequence === index && previous === `sha256:${hash}`;
    return whole ? [] : [`line ${index + 1} of the evidence does not follow the one before it`];
  });
}

function names(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function contents(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(text) as Readonly<Record<string, unknown>>;
  } catch {
    return {};
  }
}

// ---- small things -------------------------------------------------------------------------------------------------

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function ended(child: ChildProcess): Promise<Ended> {
  let [out, err] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { out += text; });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { err += text; });
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })));
}

function pause(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

/** The same seed, the same order. */
function shuffled(values: readonly number[], seed: number): number[] {
  const key = (value: number): string => createHash('sha256').update(`${seed} ${value}`).digest('hex');
  return [...values].sort((one, other) => (key(one) < key(other) ? -1 : 1));
}
