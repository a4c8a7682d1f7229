/**
 * `npm run soak`: clone, run, kill, a thousand times over, in turn with Node and Python. Goal: no hang, no leak, no two
 * clones alike. Method: every run must be accepted and its release verified; what must be distinct is collected over all
 * of them; and a leak oracle that shares no code with the product compares the machine before and after.
 *
 *   npm run soak -- [--cycles 1000] [--minutes 60]
 *   npm run soak -- --kill 100 [--seed 1]            kill -9 of `mayfly run` instead (kills.ts)
 */
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { SealedProfile } from '../../src/profile/profile.ts';
import { home } from '../vm/rig.ts';
import { killRounds } from './kills.ts';
import { printTable, row, timeHead } from './table.ts';
import { handler, openWorld } from './world.ts';

const { values } = parseArgs({
  options: {
    cycles: { type: 'string', default: '1000' }, minutes: { type: 'string', default: '60' },
    kill: { type: 'string' }, seed: { type: 'string', default: '1' },
  },
});
if (values.kill !== undefined) process.exit(await killSoak(Number(values.kill), Number(values.seed)));
/** Cycles wanted; fewer are done when the time is over, and the report counts what was done. */
const wanted = Number(values.cycles);
const millisMax = Number(values.minutes) * 60_000;
let cycles = 0;
/** A clone's clock may be behind by how long its event took to answer, and no more, ms. */
const CLOCK_TOLERANCE = 1_000;

interface Answer {
  readonly unique: Readonly<Record<string, string>>;
  readonly clockMillis: number;
  readonly digest: string;
}

/** Whatever this process makes in its temporary folder; other people's work is in theirs. */
const ownTemporary = mkdtempSync(join(tmpdir(), 'mayfly-soak-'));
process.env['TMPDIR'] = ownTemporary;

const world = await openWorld();
const subjects = [
  { image: 'node', workload: await handler('test/perf/functions/unique.mjs') },
  { image: 'python', workload: await handler('test/perf/functions/unique.py') },
] as const;
const failures: string[] = [];
const seen = new Map<string, Set<string>>();
const times = new Map<string, number[]>(subjects.map(({ image }) => [image, []]));
let retried = 0;
let waited = 0;

// Templates and caches first: what they leave is no leak.
const profiles = new Map<string, SealedProfile | undefined>();
for (const { image, workload } of subjects) {
  profiles.set(image, (await world.run(image, workload, Buffer.from('{}'))).profile);
}
const before = lookAround();
const started = performance.now();
// An event takes a clone that waits when there is one, and has one made when there is none: both ways are under test.
for (const { image, workload } of subjects) {
  const profile = profiles.get(image);
  if (profile === undefined) throw new Error(`there is no profile for ${image}`);
  world.pool.keep({ profile, workload }, 1);
}
while (cycles < wanted && performance.now() - started < millisMax) await once(cycles++);
await world.pool.close().catch((thrown: unknown) => failures.push(`the pool: ${String(thrown)}`));
await new Promise((resolve) => setTimeout(resolve, 500));
const after = lookAround();

for (const name of Object.keys(before) as (keyof Surroundings)[]) {
  const left = after[name].filter((item) => !before[name].includes(item));
  if (left.length > 0) failures.push(`left behind, ${name}: ${left.slice(0, 10).join(', ')}`);
}
printTable(`${cycles} of ${wanted} clone-run-kill cycles in ${((performance.now() - started) / 60_000).toFixed(1)} min`, timeHead,
  [...times].map(([image, millis]) => row(`${image}: event to sealed`, millis)));
process.stdout.write(`distinct values collected: ${[...seen].map(([what, found]) => `${what} ${found.size}`).join(', ')}\n`);
process.stdout.write(`events that met a clone that waited: ${waited}\n`);
process.stdout.write(`clones given up before delivery and replaced: ${retried}\n`);
process.stdout.write(`resident memory of this process: ${(process.memoryUsage.rss() / 1024 ** 2).toFixed(0)} MiB\n`);
rmSync(ownTemporary, { recursive: true });
for (const failure of failures.slice(0, 50)) process.stdout.write(`FAILED  ${failure}\n`);
process.stdout.write(`${cycles - Math.min(cycles, failures.length)} passed, ${failures.length} failed\n`);
process.exitCode = failures.length > 0 ? 1 : 0;

/** Exit code. */
async function killSoak(rounds: number, seed: number): Promise<number> {
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const report = await killRounds({ home, rounds, seed, buildEvery: 20, say });
  printTable(`${rounds} rounds, seed ${seed}: ${report.killed} killed alive, ${report.abandoned} with an accepted event`,
    timeHead, [
      row('kill to the end of the VMM', [...report.machineMillis]),
      row('the next start, with its event', [...report.recoveryMillis]),
    ]);
  process.stdout.write(`records written: ${report.records}, the chain whole, one for each accepted event\n`);
  for (const failure of report.failures) process.stdout.write(`FAILED  ${failure}\n`);
  process.stdout.write(`${report.killed} killed, ${report.failures.length} failed\n`);
  return report.failures.length > 0 ? 1 : 0;
}

async function once(cycle: number): Promise<void> {
  const subject = subjects[cycle % subjects.length] ?? subjects[0];
  const from = performance.now();
  const outcome = await world.run(subject.image, subject.workload, Buffer.from(`{"cycle":${cycle}}`));
  times.get(subject.image)?.push(performance.now() - from);
  if (!outcome.timeline.some(({ stage }) => stage === 'uniqueness')) waited++;
  const where = `cycle ${cycle} (${subject.image}, ${outcome.runId})`;
  retried += outcome.attempts.length > 1 ? outcome.attempts.length - 1 : 0;
  if (outcome.state !== 'sealed') failures.push(`${where}: ${outcome.state}, ${outcome.release.left.join(', ')}`);
  if (outcome.verdict.kind !== 'accepted') {
    failures.push(`${where}: ${outcome.verdict.code} ${outcome.verdict.message}`);
    return;
  }
  const answer = JSON.parse(String(outcome.output)) as Answer;
  for (const [what, value] of Object.entries(answer.unique)) {
    const found = seen.get(`${subject.image}.${what}`) ?? new Set<string>();
    seen.set(`${subject.image}.${what}`, found);
    if (found.has(value)) failures.push(`${where}: ${what} ${value} was seen before`);
    found.add(value);
  }
  const behind = Date.now() - answer.clockMillis;
  if (behind < -CLOCK_TOLERANCE || behind > CLOCK_TOLERANCE + performance.now() - from) {
    failures.push(`${where}: its clock was off by ${behind} ms`);
  }
  if ((cycle + 1) % 50 === 0) process.stderr.write(`soak: ${cycle + 1} of ${wanted}, ${failures.length} failures\n`);
}

interface Surroundings {
  readonly machines: readonly string[];
  readonly descriptors: readonly string[];
  readonly runs: readonly string[];
  readonly temporary: readonly string[];
  readonly mounts: readonly string[];
}

/** Processes that are QEMU by their program file, zombies not; this process's descriptors by kind; files and mounts. */
function lookAround(): Surroundings {
  const link = (path: string): string => {
    try {
      return readlinkSync(path);
    } catch {
      return '';
    }
  };
  const names = (folder: string): string[] => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  };
  const pids = names('/proc').filter((name) => /^\d+$/.test(name));
  const descriptors = names('/proc/self/fd').map((name) => link(`/proc/self/fd/${name}`).replace(/\d+/g, 'N'));
  const count = new Map<string, number>();
  return {
    // Of this home only: other homes have machines of their own.
    machines: pids.filter((pid) => {
      if (!link(`/proc/${pid}/exe`).includes('qemu-system')) return false;
      return names(`/proc/${pid}/fd`).some((descriptor) => link(`/proc/${pid}/fd/${descriptor}`).startsWith(`${home}/`));
    }),
    // The nth descriptor of a kind is one item: five sockets before and six after leave one.
    descriptors: descriptors.map((kind) => {
      count.set(kind, (count.get(kind) ?? 0) + 1);
      return `${kind} #${count.get(kind)}`;
    }),
    runs: names(join(home, 'run')),
    temporary: names(ownTemporary),
    mounts: readFileSync('/proc/self/mounts', 'utf8').split('\n'),
  };
}
