/**
 * One record per accepted event, whatever became of it: a line of canonical JSON that carries the hash of the line
 * before it. docs/FORMATS.md has the format.
 */
import type { Isolation } from '../clone/vmm/contract.ts';
import type { Blame, ErrorCode } from '../core/errors.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import type { EgressReport } from '../egress/report.ts';
import type { ShippedCode } from '../event/workload.ts';
import type { Profile, Reason } from '../profile/profile.ts';
import type { Release } from '../release/release.ts';
import type { Verdict } from '../validate/verdict.ts';

/** Steps of a run in the order they happen; `template` is the lookup, or the build of a missing one. */
export type TimelineStage =
  | 'profile' | 'template' | 'clone' | 'restore' | 'uniqueness' | 'proof' | 'execute' | 'validate' | 'release';

export interface TimelineEntry {
  readonly stage: TimelineStage;
  /** Start, ms after the event was accepted. */
  readonly at: number;
  readonly millis: number;
  /** Clone attempt that it belongs to, from 1. */
  readonly attempt: number;
}

/** What the workload used, as the guest's agent reported it. */
export interface Usage {
  readonly exitCode: number;
  /** Signal number that ended the workload, 0 for none. */
  readonly signal: number;
  readonly cpuMicros: number;
  readonly memoryPeakBytes: number;
  readonly oomKills: number;
  readonly pidsMaxHits: number;
}

/** Facts that the clone reported, and in what they differ from its profile. The event is delivered only without any. */
export interface Proof {
  readonly facts: readonly string[];
  readonly differences: readonly string[];
}

/** Versions and digests of what the clone was made of. */
export interface Origin {
  readonly isolation: Isolation;
  /** As in `QEMU 7.2.22`. */
  readonly vmm: string;
  /** `sha256:` digest or release of the guest's kernel. */
  readonly kernel: string;
  readonly imageName: string;
  readonly imageDigest: string;
}

/** One try to get a usable clone. `failure` is absent when this is the one that the event was delivered to. */
export interface Attempt {
  readonly attempt: number;
  readonly failure?: { readonly code: ErrorCode; readonly message: string };
}

/** The verdict without the guest's own words: message and detail may hold the customer's data. */
export type RecordedVerdict =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'failed' | 'withheld'; readonly code: ErrorCode; readonly blame: Blame };

interface RecordedProfile {
  readonly digest: string;
  /** Null when the process that had it died before it could be written. */
  readonly content: Profile | null;
  readonly reasons: readonly Reason[];
}

export interface EvidenceRecord {
  readonly evidenceVersion: 1;
  /** Position in the chain, from 0. */
  readonly sequence: number;
  /** `sha256:` and 64 hex digits over the previous line without its newline; 64 zeros in the first record. */
  readonly previous: string;
  readonly runId: string;
  /** ISO 8601. */
  readonly acceptedAt: string;
  readonly sealedAt: string;
  readonly event: { readonly digest: string; readonly bytes: number };
  /** Null when the process that shipped it died before it could be written. */
  readonly code: ShippedCode | null;
  /** Null when the run ended before it had one. */
  readonly profile: RecordedProfile | null;
  readonly origin: Origin | null;
  readonly attempts: readonly Attempt[];
  readonly delivered: boolean;
  readonly proof: Proof | null;
  readonly timeline: readonly TimelineEntry[];
  readonly usage: Usage | null;
  /** What the function did on the network; null when the event was not delivered. */
  readonly network: EgressReport | null;
  readonly verdict: RecordedVerdict;
  readonly output: { readonly digest: string; readonly bytes: number } | null;
  readonly release: Release;
}

/** What a run knows about itself; the chain adds the rest. */
export type EvidenceDraft = Omit<EvidenceRecord, 'evidenceVersion' | 'sequence' | 'previous' | 'sealedAt'>;

export interface SealedEvidence {
  readonly record: EvidenceRecord;
  /** `sha256:` and 64 hex digits over the record's line: what the next record points to. */
  readonly hash: string;
}

/** What the first record points to. */
export const chainStart = `sha256:${'0'.repeat(64)}`;

export interface ChainPlace {
  readonly sequence: number;
  readonly previous: string;
}

export function makeRecord(draft: EvidenceDraft, place: ChainPlace, sealedAt: string): EvidenceRecord {
  return { evidenceVersion: 1, ...place, sealedAt, ...draft };
}

/** The record's one line, without its newline. */
export function encodeRecord(record: EvidenceRecord): string {
  return canonicalJson(record);
}

export function hashOfLine(line: string): string {
  return digestOf(line);
}

export function recordedVerdict(verdict: Verdict): RecordedVerdict {
  if (verdict.kind === 'accepted') return { kind: 'accepted' };
  return { kind: verdict.kind, code: verdict.code, blame: verdict.blame };
}
