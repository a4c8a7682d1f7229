/**
 * What kill -9 left behind: at start-up, runs whose process is gone are ended by the next Mayfly.
 *
 * The planner is pure: journals and facts in, steps out. The executor does the steps and decides only one thing, again
 * and right before each kill: whether that pid is still that process. Where the facts do not suffice the run is left
 * alone and reported, never guessed at. Every step may be repeated, also by two Mayflies at once.
 */
import { join, resolve } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { isRunId, runIdMillis } from '../core/ids.ts';
import { limits } from '../core/limits.ts';
import type { Holding, JournalEntry } from '../journal/entry.ts';
import { readJournal } from '../journal/journal.ts';
import type { Replay } from '../journal/journal.ts';
import { describeHolding } from './ledger.ts';
import { isAlive } from './processes.ts';
import type { Processes } from './processes.ts';
import type { Release } from './release.ts';
import { remains } from './verify.ts';

/** One folder of MAYFLY_HOME/run as it was found. */
export interface FoundRun {
  readonly name: string;
  readonly journal: Replay;
  /** The process that wrote `accepted` is alive; undefined without such an entry. */
  readonly ownerAlive: boolean | undefined;
}

type AcceptedEntry = Extract<JournalEntry, { kind: 'accepted' }>;

/** A run that its process did not live to end. */
export interface AbandonedRun {
  readonly accepted: AcceptedEntry;
  readonly attempts: number;
  readonly delivered: boolean;
  readonly profileDigest: string | undefined;
}

export type ReclaimStep =
  /** Its process is alive. */
  | { readonly do: 'leave'; readonly name: string }
  /** Cannot be told yet: `reason` is for the operator. */
  | { readonly do: 'report'; readonly name: string; readonly reason: string }
  /** Nothing was ever taken, or everything is sealed: only the folder is left. */
  | { readonly do: 'remove'; readonly name: string }
  /** A clone that waited for an event: nothing was accepted, so there is no evidence to write. */
  | { readonly do: 'drop'; readonly name: string; readonly holdings: readonly Holding[] }
  | { readonly do: 'end'; readonly name: string; readonly run: AbandonedRun; readonly holdings: readonly Holding[] };

/** A run id tells when it was made; a folder this old without a first entry has no writer any more. */
const SETTLED_MILLIS = 600_000;

export interface PlanFacts {
  readonly bootId: string;
  readonly wallMillis: number;
}

export function planReclaim(runs: readonly FoundRun[], facts: PlanFacts): ReclaimStep[] {
  return runs.map((run) => planOne(run, facts));
}

function planOne({ name, journal, ownerAlive }: FoundRun, { bootId, wallMillis }: PlanFacts): ReclaimStep {
  if (!isRunId(name)) return { do: 'report', name, reason: 'not a run of Mayfly' };
  if (!journal.ok) return { do: 'report', name, reason: `its journal is damaged at line ${journal.line}` };
  const { entries } = journal;
  const accepted = entries[0];
  if (accepted === undefined) {
    const old = wallMillis - runIdMillis(name) > SETTLED_MILLIS;
    return old ? { do: 'remove', name } : { do: 'report', name, reason: 'it is just being created' };
  }
  if (accepted.kind !== 'accepted' && accepted.kind !== 'pooled') {
    return { do: 'report', name, reason: 'its journal does not begin with `accepted` or `pooled`' };
  }
  if (ownerAlive !== false) return { do: 'leave', name };
  if (entries.some(({ kind }) => kind === 'sealed')) return { do: 'remove', name };
  const holdings = entries.flatMap((entry) => (entry.kind === 'holding' ? [entry.holding] : []));
  // No process outlives a boot of the host, and its pids mean nothing in the next one.
  const sameBoot = accepted.owner.bootId === bootId;
  const still = holdings.filter(({ kind }) => sameBoot || kind === 'path');
  if (accepted.kind === 'pooled') return { do: 'drop', name, holdings: still };
  const run: AbandonedRun = {
    accepted,
    attempts: entries.filter(({ kind }) => kind === 'cloning').length,
    delivered: entries.some(({ kind }) => kind === 'delivering'),
    profileDigest: entries.find((entry) => entry.kind === 'profiled')?.digest,
  };
  return { do: 'end', name, run, holdings: still };
}

export interface ReclaimOptions {
  readonly disk: Disk;
  readonly processes: Processes;
  readonly clock: { wallNanos(): bigint };
  /** MAYFLY_HOME/run */
  readonly folder: string;
  /** Writes the evidence of a run that has none yet; may find that it has. */
  readonly seal: (run: AbandonedRun, release: Release) => Promise<void>;
  readonly wait: (millis: number) => Promise<void>;
}

export interface Reclaimed {
  /** Run ids that were ended and sealed. */
  readonly ended: readonly string[];
  /** Those of them whose event certainly reached no function. */
  readonly undelivered: readonly string[];
  /** What an operator should know, one line each. */
  readonly reports: readonly string[];
}

/** Rejects only when MAYFLY_HOME/run cannot be listed or the boot id not be read. */
export async function reclaimRuns(options: ReclaimOptions): Promise<Reclaimed> {
  const { disk, processes, clock, folder } = options;
  const names = (await disk.list(folder)).slice(0, limits.reclaimRunsMax);
  if (names.length === 0) return { ended: [], undelivered: [], reports: [] };
  const bootId = await processes.bootId();
  const reports: string[] = [];
  const found: FoundRun[] = [];
  for (const name of names) {
    try {
      found.push(await inspect(options, name, bootId));
    } catch (thrown) {
      reports.push(`run ${name} could not be read: ${(thrown as Error).message}`);
    }
  }
  const ended: string[] = [];
  const undelivered: string[] = [];
  for (const step of planReclaim(found, { bootId, wallMillis: Number(clock.wallNanos() / 1_000_000n) })) {
    try {
      if (await carryOut(options, step)) ended.push(step.name);
      if (step.do === 'end' && !step.run.delivered) undelivered.push(step.name);
      if (step.do === 'report') reports.push(`run ${step.name} was left alone: ${step.reason}`);
    } catch (thrown) {
      reports.push(`run ${step.name} could not be ended: ${(thrown as Error).message}`);
    }
  }
  return { ended, undelivered, reports };
}

async function inspect({ disk, processes, folder }: ReclaimOptions, name: string, bootId: string): Promise<FoundRun> {
  const journal = await readJournal(disk, join(folder, name));
  const first = journal.ok ? journal.entries[0] : undefined;
  if (first?.kind !== 'accepted' && first?.kind !== 'pooled') return { name, journal, ownerAlive: undefined };
  const { owner } = first;
  const ownerAlive = owner.bootId === bootId && (await isAlive(processes, owner.pid, BigInt(owner.startTicks)));
  return { name, journal, ownerAlive };
}

/** True when a run was ended. */
async function carryOut(options: ReclaimOptions, step: ReclaimStep): Promise<boolean> {
  const path = join(options.folder, step.name);
  if (step.do === 'leave' || step.do === 'report') return false;
  if (step.do === 'remove') {
    await options.disk.remove(path);
    return false;
  }
  for (const holding of step.holdings) await giveBack(options, holding);
  const release = await look(options, step.holdings);
  if (!release.verified) throw new Error(`still there: ${release.left.join(', ')}`);
  if (step.do === 'end') await options.seal(step.run, release);
  await options.disk.remove(path);
  return step.do === 'end';
}

async function giveBack(options: ReclaimOptions, holding: Holding): Promise<void> {
  const { disk, processes, wait, folder } = options;
  if (holding.kind === 'path') {
    // A run's files are in the run's folder; a journal that says otherwise does not get to choose what is removed.
    if (resolve(holding.path) !== holding.path || !holding.path.startsWith(`${folder}/`)) {
      throw new Error(`${holding.path} is not below ${folder}`);
    }
    return await disk.remove(holding.path);
  }
  if (holding.kind !== 'machine') return;
  const startTicks = BigInt(holding.startTicks);
  // The identity is looked at again right here: between plan and kill the pid may have become a stranger's.
  if (!(await isAlive(processes, holding.pid, startTicks))) return;
  processes.kill(holding.pid);
  for (let waited = 0; waited < limits.reapMillisMax; waited += REAP_POLL_MILLIS) {
    if (!(await isAlive(processes, holding.pid, startTicks))) return;
    await wait(REAP_POLL_MILLIS);
  }
}

const REAP_POLL_MILLIS = 10;

async function look(options: ReclaimOptions, holdings: readonly Holding[]): Promise<Release> {
  const released: string[] = [];
  const left: string[] = [];
  for (const holding of holdings) {
    const seen = await remains(holding, options);
    if (seen === undefined) released.push(describeHolding(holding));
    else left.push(`${describeHolding(holding)}: ${seen}`);
  }
  return { verified: left.length === 0, released, left };
}
