/**
 * The stages as they are put together for real: main.ts gives them the machine's disk, processes, clock and VMM, and
 * test/sim gives them simulated ones. Everything else is the same code.
 */
import { join } from 'node:path';
import { deliverEvent, loadAhead, proofMismatch, proveProfile } from './bridge/deliver.ts';
import { holdMachine, makeClone } from './clone/clone.ts';
import type { Clone, CloneContext, CloneOptions, CloneOrder } from './clone/clone.ts';
import { Pool } from './clone/pool.ts';
import type { PoolOrder, WaitingClone } from './clone/pool.ts';
import type { Disk } from './core/disk.ts';
import { MayflyError } from './core/errors.ts';
import { newRunId } from './core/ids.ts';
import { isoTime } from './core/time.ts';
import { EgressBroker } from './egress/broker.ts';
import type { Network } from './egress/broker.ts';
import type { Denies } from './egress/contract.ts';
import { acceptEvent } from './event/accept.ts';
import type { Event } from './event/event.ts';
import { httpRequestOf } from './event/http.ts';
import type { EvidenceDraft, Origin } from './evidence/record.ts';
import { hasEvidence, sealEvidence } from './evidence/seal.ts';
import type { Signer } from './image/envelope.ts';
import type { OwnerIdentity } from './journal/entry.ts';
import { openJournal } from './journal/journal.ts';
import type { Journal } from './journal/journal.ts';
import { decideProfile } from './policy.ts';
import type { SealedProfile } from './profile/profile.ts';
import { Ledger } from './release/ledger.ts';
import type { Processes } from './release/processes.ts';
import { reclaimRuns } from './release/reclaim.ts';
import type { AbandonedRun, Reclaimed } from './release/reclaim.ts';
import type { Release } from './release/release.ts';
import { releaseAll } from './release/release.ts';
import { takeSnapshot } from './snapshot.ts';
import type { RunRequest, Stages } from './stages.ts';
import { examineOutput } from './validate/examine.ts';
import { validateOutput } from './validate/output.ts';

export interface ComposeOptions extends CloneOptions {
  /** MAYFLY_HOME */
  readonly home: string;
  readonly disk: Disk;
  readonly processes: Processes;
  /** This process. */
  readonly owner: OwnerIdentity;
  /** What brokers of runs dial and resolve with. */
  readonly network: Network;
  readonly origin: (request: RunRequest) => Origin;
  /** What threat intelligence lists may not be connected to, whatever a profile allows. */
  readonly denies?: Denies;
  /** What all snapshots may have, bytes. */
  readonly snapshotBudgetBytes: number;
  /** Signs evidence: this machine's key. */
  readonly signer: Signer;
  /** Clones that wait; without it every clone is made when its event is there. */
  readonly pool?: Pool | undefined;
}

/** Throws E_IMAGE_UNKNOWN when the image is not that of the profile any more. */
function recorded(profile: SealedProfile, { image }: RunRequest): SealedProfile {
  if (profile.profile.image.digest === image.digest) return profile;
  throw new MayflyError('E_IMAGE_UNKNOWN', `the image ${image.name} is another one than that of the profile`, {
    remedy: 'Tag the image of that time again, or let the profile be decided anew with `--profile new`.',
  });
}

export function createStages(options: ComposeOptions): Stages {
  const { clock, random, disk, processes, home } = options;
  return {
    clock,
    origin: options.origin,
    accept: (bytes, runId = newRunId(clock, random)) => acceptEvent({ bytes, runId, clock }),
    open: (event) => openRun(options, event),
    profile: (event, request) => {
      return request.profile === undefined ? decideProfile(event, request) : recorded(request.profile, request);
    },
    clone: async (order, context) => {
      return (await takeWaiting(options, order, context)) ?? (await makeClone(options, order, context));
    },
    bridge: (clone, profile, { workload }, signal) => proveProfile(clone, profile, workload, signal),
    egress: ({ profile }) => {
      const denies = options.denies === undefined ? {} : { denies: options.denies };
      return new EgressBroker({ policy: profile.network, network: options.network, clock, ...denies });
    },
    execute: (clone, delivery, signal) => {
      const now = Number(clock.wallNanos() / 1_000_000n);
      const deadlineMillis = now + delivery.profile.profile.limits.wallMillis;
      const request = delivery.workload.server === undefined ? {} : { request: httpRequestOf(delivery.event) };
      return deliverEvent(clone, { ...delivery, ...request, deadlineMillis }, clock, signal);
    },
    validate: async (execution, profile, { workload, output = {} }) => {
      const raw = workload.server?.raw ?? (workload.kind === 'executable' && workload.raw);
      return await examineOutput(validateOutput({ execution, profile, workload }), output, raw);
    },
    capture: (facts) => takeSnapshot({ home, random, clock, budgetBytes: options.snapshotBudgetBytes }, facts),
    release: (ledger) => releaseAll(ledger, { disk, processes }),
    seal: (draft) => sealEvidence({ disk, clock, signer: options.signer, folder: join(home, 'evidence') }, draft),
  };
}

/** Keeps clones ready for an order; the pool's own record of each is a folder beside those of the runs. */
export function createPool(options: ComposeOptions, mayFill: () => boolean = () => true): Pool {
  return new Pool({ clock: options.clock, mayFill, prime: (order, signal) => primeClone(options, order, signal) });
}

async function primeClone(options: ComposeOptions, order: PoolOrder, signal: AbortSignal): Promise<WaitingClone> {
  const { clock, random, disk, processes, home, owner } = options;
  const { profile, workload } = order;
  const runId = newRunId(clock, random);
  const journal = await openJournal(disk, join(home, 'run', runId));
  await journal.append({ kind: 'pooled', journalVersion: 1, runId, owner });
  const ledger = new Ledger(journal);
  const drop = async (): Promise<void> => {
    const { verified, left } = await releaseAll(ledger, { disk, processes });
    if (!verified) throw new MayflyError('E_RELEASE_INCOMPLETE', left.join(', '));
    await journal.remove();
  };
  try {
    const context: CloneContext = { signal, timed: async (_stage, work) => await work() };
    const clone = await makeClone(options, { runId, profile, workload, ledger, attempt: 1 }, context);
    const proof = await proveProfile(clone, profile, workload, signal);
    if (proof.differences.length > 0) throw proofMismatch(proof);
    const loaded = await loadAhead(clone, workload, clock, signal);
    const proved = { profileDigest: profile.digest, proof, loaded };
    return { clone: { ...clone, proved }, handOver: () => journal.remove(), drop };
  } catch (thrown) {
    await drop();
    throw thrown;
  }
}

/** The run's ledger has the machine before the pool's record of it goes: at any moment one of them accounts for it. */
async function takeWaiting(
  { pool }: ComposeOptions,
  { profile, workload, ledger, attempt }: CloneOrder,
  { timed }: CloneContext,
): Promise<Clone | undefined> {
  const waiting = pool?.take(profile.digest, workload);
  if (pool === undefined || waiting === undefined) return undefined;
  return await timed('clone', async () => {
    const { clone } = waiting;
    await ledger.announce(attempt).catch(async (thrown: unknown) => {
      await waiting.drop();
      throw thrown;
    });
    await holdMachine(ledger, clone.machine, clone.session);
    pool.settle(waiting);
    await clone.template.check();
    return clone;
  });
}

async function openRun(options: ComposeOptions, event: Event): Promise<{ journal: Journal; ledger: Ledger }> {
  const { disk, home, owner } = options;
  const folder = join(home, 'run', event.runId);
  try {
    const journal = await openJournal(disk, folder);
    await journal.append(
      {
        kind: 'accepted',
        journalVersion: 1,
        runId: event.runId,
        owner,
        acceptedAt: isoTime(event.acceptedNanos),
        event: { digest: event.digest, bytes: event.bytes.length },
      },
      { sync: true },
    );
    return { journal, ledger: new Ledger(journal) };
  } catch (cause) {
    await disk.remove(folder).catch(() => {});
    const message = `${folder}: ${cause instanceof Error ? cause.message : String(cause)}`;
    if (isFull(cause)) throw new MayflyError('E_DISK_SPACE', message, { cause });
    throw new MayflyError(isUnusable(cause) ? 'E_HOME_UNUSABLE' : 'E_INTERNAL', message, { cause });
  }
}

function isFull(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && (cause.code === 'ENOSPC' || cause.code === 'EDQUOT');
}

/** The folder cannot be made or written to, for whatever reason that lies outside of Mayfly. */
export function isUnusable(cause: unknown): boolean {
  const codes = ['EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'ENOENT', 'ELOOP'];
  return cause instanceof Error && 'code' in cause && codes.includes(String(cause.code));
}

export interface ReclaimComposition extends Pick<ComposeOptions, 'home' | 'disk' | 'processes' | 'clock'> {
  /** Asked for only when there is something to sign. */
  readonly signer: () => Promise<Signer>;
  readonly wait: (millis: number) => Promise<void>;
}

/** Ends what earlier processes left behind, before the first run. */
export function reclaimAbandoned(options: ReclaimComposition): Promise<Reclaimed> {
  const { home, disk, processes, clock, signer, wait } = options;
  const evidence = join(home, 'evidence');
  const seal = async (run: AbandonedRun, release: Release): Promise<void> => {
    if (await hasEvidence(disk, evidence, run.accepted.runId)) return;
    await sealEvidence({ disk, clock, signer: await signer(), folder: evidence }, abandonedDraft(run, release));
  };
  return reclaimRuns({ disk, processes, clock, wait, folder: join(home, 'run'), seal });
}

/** What can still be said about a run whose process died; the profile's content died with it, its digest did not. */
function abandonedDraft(run: AbandonedRun, release: Release): EvidenceDraft {
  const { accepted, attempts, delivered, profileDigest } = run;
  return {
    runId: accepted.runId,
    acceptedAt: accepted.acceptedAt,
    event: accepted.event,
    code: null,
    profile: profileDigest === undefined ? null : { digest: profileDigest, content: null, reasons: [] },
    origin: null,
    attempts: Array.from({ length: attempts }, (_, index) => ({ attempt: index + 1 })),
    delivered,
    proof: null,
    timeline: [],
    usage: null,
    network: null,
    verdict: { kind: 'failed', code: 'E_ABANDONED', blame: 'host' },
    output: null,
    snapshot: null,
    release,
  };
}
