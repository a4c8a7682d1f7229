/**
 * What one run has gathered on its way: the stages' results, the timeline, and from both the evidence and the outcome.
 * It decides nothing.
 */
import { asMayflyError } from './core/errors.ts';
import { limits } from './core/limits.ts';
import { Tail } from './core/tail.ts';
import { isoTime, millisRounded } from './core/time.ts';
import { recordedVerdict } from './evidence/record.ts';
import type { Attempt, EvidenceDraft, Proof, SealedEvidence, TimelineEntry, TimelineStage } from './evidence/record.ts';
import type { Clone } from './clone/clone.ts';
import type { Event } from './event/event.ts';
import { shippedCode } from './event/workload.ts';
import type { RecordedSnapshot } from './forensics/manifest.ts';
import type { Journal } from './journal/journal.ts';
import type { SealedProfile } from './profile/profile.ts';
import type { Ledger } from './release/ledger.ts';
import type { Release } from './release/release.ts';
import type { Outcome, RunBroker, RunObserver, RunRequest, Stages } from './stages.ts';
import type { Execution } from './validate/execution.ts';
import type { Validation } from './validate/output.ts';
import type { Verdict } from './validate/verdict.ts';

/** Nothing was taken, nothing is left. */
const NOTHING: Release = Object.freeze({ verified: true, released: [], left: [] });

export interface JourneyOptions {
  readonly stages: Stages;
  readonly request: RunRequest;
  readonly observer: RunObserver;
  readonly event: Event;
  readonly journal: Journal;
  readonly ledger: Ledger;
}

export class Journey {
  readonly stages: Stages;
  readonly request: RunRequest;
  readonly event: Event;
  readonly journal: Journal;
  readonly ledger: Ledger;
  profile: SealedProfile | undefined;
  clone: Clone | undefined;
  proof: Proof | undefined;
  execution: Execution | undefined;
  broker: RunBroker | undefined;
  validation: Validation | undefined;
  evidence: SealedEvidence | undefined;
  snapshot: RecordedSnapshot | undefined;
  attempts: readonly Attempt[] = [];
  attempt = 1;
  delivered = false;
  #release: Release = NOTHING;
  readonly #log = { stdout: new Tail(limits.snapshotLogBytes), stderr: new Tail(limits.snapshotLogBytes) };
  readonly #observer: RunObserver;
  readonly #timeline: TimelineEntry[] = [];
  readonly #start: number;

  constructor(options: JourneyOptions) {
    this.stages = options.stages;
    this.request = options.request;
    this.event = options.event;
    this.journal = options.journal;
    this.ledger = options.ledger;
    this.#observer = options.observer;
    this.#start = options.stages.clock.now();
  }

  /** Measures `work`, whether it succeeds or not. */
  async timed<T>(stage: TimelineStage, work: () => T | Promise<T>): Promise<T> {
    const { clock } = this.stages;
    const from = clock.now();
    try {
      return await work();
    } finally {
      this.#passed(stage, from);
    }
  }

  #passed(stage: TimelineStage, from: number): void {
    const entry = { stage, at: from - this.#start, millis: this.stages.clock.now() - from, attempt: this.attempt };
    this.#timeline.push(entry);
    this.tell((observer) => observer.stage?.(entry));
  }

  /** An observer only watches: what it throws is its own. */
  tell(what: (observer: RunObserver) => void): void {
    try {
      what(this.#observer);
    } catch {
      // Deliberately nothing: see above.
    }
  }

  /** A piece of the function's log has arrived. */
  logged(stream: 'stdout' | 'stderr', chunk: Buffer): void {
    this.#log[stream].push(chunk);
    this.tell((observer) => observer[stream]?.(chunk));
  }

  /** Never rejects: what cannot be kept is on record as that. */
  async capture(verdict: Verdict): Promise<void> {
    const { stages, request, event, profile, clone, proof, execution, validation } = this;
    const from = stages.clock.now();
    try {
      this.snapshot = await stages.capture({
        request, event, profile, clone, proof, validation, verdict,
        origin: stages.origin(request), usage: execution?.usage, network: this.broker?.report(),
        timeline: [...this.#timeline], log: { stdout: this.#log.stdout.bytes, stderr: this.#log.stderr.bytes },
      });
    } catch (thrown) {
      this.snapshot = { kind: 'skipped', because: 'wanted', reason: asMayflyError(thrown).message };
    }
    if (this.snapshot !== undefined) this.#passed('capture', from);
  }

  /** Each attempt's release adds to what was released; what is left is what the last one found. */
  addRelease(release: Release): void {
    const released = [...this.#release.released, ...release.released];
    this.#release = { verified: release.verified, released, left: release.left };
  }

  /** A value from its stage, or a bug: run.ts asks for nothing before its time. */
  need<T>(value: T | undefined, name: string): T {
    if (value === undefined) throw new Error(`pipeline: no ${name} yet`);
    return value;
  }

  /** From `cloned` on. */
  ready(): { readonly clone: Clone; readonly profile: SealedProfile } {
    return { clone: this.need(this.clone, 'clone'), profile: this.need(this.profile, 'profile') };
  }

  draft(verdict: Verdict): EvidenceDraft {
    const { event, profile, execution } = this;
    return {
      runId: event.runId,
      acceptedAt: isoTime(event.acceptedNanos),
      event: { digest: event.digest, bytes: event.bytes.length },
      code: shippedCode(this.request.workload),
      profile: profile === undefined
        ? null
        : { digest: profile.digest, content: profile.profile, reasons: profile.reasons },
      origin: this.stages.origin(this.request),
      attempts: this.attempts,
      delivered: this.delivered,
      proof: this.proof ?? null,
      timeline: this.#timeline.map((entry) => {
        return { ...entry, at: millisRounded(entry.at), millis: millisRounded(entry.millis) };
      }),
      usage: execution?.usage ?? null,
      network: this.broker?.report() ?? null,
      verdict: recordedVerdict(verdict),
      output: this.validation?.digest ?? null,
      snapshot: this.snapshot ?? null,
      release: this.#release,
    };
  }

  outcome(state: 'sealed' | 'quarantined', verdict: Verdict): Outcome {
    const { event, profile, proof, execution, evidence, attempts } = this;
    return {
      runId: event.runId,
      state,
      verdict,
      output: verdict.kind === 'accepted' ? this.validation?.output : undefined,
      profile,
      proof,
      timeline: this.#timeline,
      usage: execution?.usage,
      network: this.broker?.report(),
      truncated: {
        stdout: execution?.truncated.stdout ?? false,
        stderr: execution?.truncated.stderr ?? false,
      },
      attempts,
      release: this.#release,
      snapshot: this.snapshot,
      evidence,
    };
  }
}
