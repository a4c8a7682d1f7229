/**
 * The words that pipeline.ts is written in: what a run is asked for, what it answers, and the stages it is made of.
 * main.ts builds the real stages, test/sim faulty ones; pipeline.ts cannot tell them apart.
 */
import type { RunId } from './core/ids.ts';
import type { Clock } from './core/time.ts';
import type { Event } from './event/event.ts';
import type { Workload } from './event/workload.ts';
import type { Clone, CloneContext, CloneOrder } from './clone/clone.ts';
import type { Attempt, EvidenceDraft, Origin, Proof, SealedEvidence, TimelineEntry, Usage } from './evidence/record.ts';
import type { RecordedSnapshot } from './forensics/manifest.ts';
import type { Journal } from './journal/journal.ts';
import type { PolicyRequest } from './policy.ts';
import type { RunFacts } from './snapshot.ts';
import type { SealedProfile } from './profile/profile.ts';
import type { Ledger } from './release/ledger.ts';
import type { Release } from './release/release.ts';
import type { Broker } from './egress/contract.ts';
import type { EgressReport } from './egress/report.ts';
import type { Execution } from './validate/execution.ts';
import type { OutputContract } from './validate/contract.ts';
import type { Validation } from './validate/output.ts';
import type { Verdict } from './validate/verdict.ts';

export interface RunRequest extends PolicyRequest {
  /** The event as it came, UTF-8 JSON: a CloudEvent, or any other value, which is wrapped in one. */
  readonly event: Buffer;
  /** Known to the caller before there is a run; otherwise a new one is made. */
  readonly runId?: RunId;
  /** The profile itself, of a run that is done again: nothing else decides it. */
  readonly profile?: SealedProfile;
  /** Keep the clone's end, whatever its profile says. */
  readonly keep?: boolean;
  /** What is demanded of the output beyond being one. */
  readonly output?: OutputContract;
  /** Ctrl-C or a caller that has gone away: the run is released and sealed at once, as E_INTERRUPTED. */
  readonly signal?: AbortSignal;
}

/** Told what happens while it happens; nothing that it does changes the run. What it throws is ignored. */
export interface RunObserver {
  /** A step has ended. */
  stage?(entry: TimelineEntry): void;
  /** Bytes of the customer's log, as they arrive: hostile, at most the profile's stdoutBytes and stderrBytes. */
  stdout?(chunk: Buffer): void;
  stderr?(chunk: Buffer): void;
  /** A clone was given up before the event reached it, and another one is tried. */
  retry?(attempt: Attempt): void;
}

export interface Outcome {
  readonly runId: RunId;
  /** `quarantined`: something is left (release.left) or the evidence could not be written. Tell an operator. */
  readonly state: 'sealed' | 'quarantined';
  readonly verdict: Verdict;
  /** The validated output: JSON text, or any bytes of a raw executable. Present only if the verdict is `accepted`. */
  readonly output: Buffer | undefined;
  readonly profile: SealedProfile | undefined;
  readonly proof: Proof | undefined;
  readonly timeline: readonly TimelineEntry[];
  readonly usage: Usage | undefined;
  readonly network: EgressReport | undefined;
  /** stdout or stderr was longer than the profile allows, and its rest was dropped. */
  readonly truncated: { readonly stdout: boolean; readonly stderr: boolean };
  readonly attempts: readonly Attempt[];
  readonly release: Release;
  /** What was kept of the clone's end. */
  readonly snapshot: RecordedSnapshot | undefined;
  /** Undefined only when it could not be written; the verdict then says E_EVIDENCE_WRITE. */
  readonly evidence: SealedEvidence | undefined;
}

export interface Stages {
  readonly clock: Clock;
  /** What clones are made of on this machine, for the evidence. */
  origin(request: RunRequest): Origin;
  /** Throws E_EVENT_INVALID and E_EVENT_TOO_LARGE: such an event was never accepted and has no evidence. */
  accept(bytes: Buffer, runId?: RunId): Event;
  /** From here on the run is on record and what it takes is known. Rejects when it cannot be: not accepted then. */
  open(event: Event): Promise<{ readonly journal: Journal; readonly ledger: Ledger }>;
  /** Throws E_LIMIT_INVALID and E_EVENT_REJECTED. */
  profile(event: Event, request: RunRequest): SealedProfile;
  /**
   * The signals below are aborted when the run is interrupted, and for `execute` when the function's time is over:
   * what is under way then ends soon and rejects.
   *
   * A machine that has proved to be unique. On rejection the machine, if there was one, is in the ledger.
   */
  clone(order: CloneOrder, context: CloneContext): Promise<Clone>;
  /** Limits and code into the clone; proof out of it, compared with what the profile asks for. */
  bridge(clone: Clone, profile: SealedProfile, request: RunRequest, signal: AbortSignal): Promise<Proof>;
  /** The run's only way out, under the profile's policy. */
  egress(profile: SealedProfile): RunBroker;
  /** Delivers the event: never twice in one run. */
  execute(clone: Clone, delivery: Delivery, signal: AbortSignal): Promise<Execution>;
  /** Whether the output is one, and keeps the request's contract. */
  validate(execution: Execution, profile: SealedProfile, request: RunRequest): Promise<Validation>;
  /** Undefined when nothing of this run is to be kept. */
  capture(facts: RunFacts): Promise<RecordedSnapshot | undefined>;
  /** Called again, it takes up what is left. */
  release(ledger: Ledger): Promise<Release>;
  /** Rejects with E_EVIDENCE_WRITE. */
  seal(draft: EvidenceDraft): Promise<SealedEvidence>;
}

export interface RunBroker extends Broker {
  /** What has been on the network so far. */
  report(): EgressReport;
}

interface Delivery {
  readonly broker: Broker;
  readonly event: Event;
  readonly profile: SealedProfile;
  readonly workload: Workload;
  readonly stdout: (chunk: Buffer) => void;
  readonly stderr: (chunk: Buffer) => void;
}
