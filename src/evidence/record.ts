/**
 * One record per accepted event, whatever became of it: a line of canonical JSON that carries the hash of the line
 * before it and this machine's signature. What is long, and the same for many events (profile, reasons, facts of the
 * proof) or rarely asked for (connections), stands beside it as an object under its digest. docs/FORMATS.md has the
 * format. Pure.
 */
import type { Isolation } from '../clone/vmm/contract.ts';
import type { Blame, ErrorCode } from '../core/errors.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import type { EgressReport } from '../egress/report.ts';
import type { ShippedCode } from '../event/workload.ts';
import type { RecordedSnapshot } from '../forensics/manifest.ts';
import type { Signature, Signer } from '../image/envelope.ts';
import type { Profile, Reason } from '../profile/profile.ts';
import type { Release } from '../release/release.ts';
import type { Note, Verdict } from '../validate/verdict.ts';

/** Steps of a run in the order they happen; `template` is the lookup, or the build of a missing one. */
export type TimelineStage =
  | 'profile' | 'template' | 'clone' | 'restore' | 'uniqueness' | 'proof' | 'execute' | 'validate' | 'capture'
  | 'release';

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
  /** `sha256:` digest of the initramfs that holds the agent. */
  readonly agent: string;
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
  | { readonly kind: 'accepted'; readonly notes?: readonly Note[] }
  | { readonly kind: 'failed' | 'withheld'; readonly code: ErrorCode; readonly blame: Blame };

interface DraftProfile {
  readonly digest: string;
  /** Null when the process that had it died before it could be written. */
  readonly content: Profile | null;
  readonly reasons: readonly Reason[];
}

export interface EvidenceRecord {
  readonly evidenceVersion: 2;
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
  /** Null when the run ended before it had one. The objects are absent for a run whose process died. */
  readonly profile: { readonly digest: string; readonly stored: boolean; readonly reasons: string | null } | null;
  readonly origin: Origin | null;
  readonly attempts: readonly Attempt[];
  readonly delivered: boolean;
  /** `facts` is the digest of an object: a list of text. */
  readonly proof: { readonly facts: string; readonly count: number; readonly differences: readonly string[] } | null;
  readonly timeline: readonly TimelineEntry[];
  readonly usage: Usage | null;
  /** Null when the event was not delivered. `log` is the digest of the whole report, null when nothing happened. */
  readonly network: { readonly totals: EgressReport['totals']; readonly log: string | null } | null;
  readonly verdict: RecordedVerdict;
  readonly output: { readonly digest: string; readonly bytes: number } | null;
  /** What was kept of the clone's end; null when nothing was to be. */
  readonly snapshot: RecordedSnapshot | null;
  readonly release: Release;
  readonly signature: Signature;
}

type Added = 'evidenceVersion' | 'sequence' | 'previous' | 'sealedAt' | 'signature';

/** What a run knows about itself; the chain adds the rest. */
export interface EvidenceDraft extends Omit<EvidenceRecord, Added | 'profile' | 'proof' | 'network'> {
  readonly profile: DraftProfile | null;
  readonly proof: Proof | null;
  readonly network: EgressReport | null;
}

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

/** Bytes that stand beside the record, by their digest. */
export type EvidenceObjects = ReadonlyMap<string, Buffer>;

export interface MadeRecord {
  readonly record: EvidenceRecord;
  /** Its one line, without its newline. */
  readonly line: string;
  readonly objects: EvidenceObjects;
}

export function makeRecord(draft: EvidenceDraft, place: ChainPlace, sealedAt: string, signer: Signer): MadeRecord {
  const objects = new Map<string, Buffer>();
  const put = (value: unknown): string => {
    const bytes = Buffer.from(canonicalJson(value));
    const digest = digestOf(bytes);
    objects.set(digest, bytes);
    return digest;
  };
  const { profile, proof, network, ...rest } = draft;
  if (profile !== null && profile.content !== null && put(profile.content) !== profile.digest) {
    throw new Error('a profile does not have its digest');
  }
  const body = {
    ...rest,
    evidenceVersion: 2 as const,
    ...place,
    sealedAt,
    profile: profile === null ? null : {
      digest: profile.digest, stored: profile.content !== null,
      reasons: profile.content === null ? null : put(profile.reasons),
    },
    proof: proof === null ? null : {
      facts: put(proof.facts), count: proof.facts.length, differences: proof.differences,
    },
    network: network === null ? null : { totals: network.totals, log: isQuiet(network) ? null : put(network) },
  };
  const record: EvidenceRecord = { ...body, signature: signatureOf(RECORD_KIND, body, signer) };
  return { record, line: canonicalJson(record), objects };
}

function isQuiet({ totals }: EgressReport): boolean {
  return Object.values(totals).every((count) => count === 0);
}

/** Objects that a record refers to. */
export function objectsOf({ profile, proof, network }: EvidenceRecord): string[] {
  const named = [profile?.stored === true ? profile.digest : null, profile?.reasons, proof?.facts, network?.log];
  return named.filter((digest) => typeof digest === 'string');
}

/** The last record, on its own: what is missing after it was cut off. */
export interface ChainHead {
  readonly headVersion: 1;
  readonly sequence: number;
  readonly hash: string;
  readonly signature: Signature;
}

export function makeHead(sequence: number, hash: string, signer: Signer): ChainHead {
  const body = { headVersion: 1 as const, sequence, hash };
  return { ...body, signature: signatureOf(HEAD_KIND, body, signer) };
}

// No signature of one kind is good for another.
export const RECORD_KIND = 'mayfly evidence record v2\n';
export const HEAD_KIND = 'mayfly evidence head v1\n';

/** What is signed: everything but the signature itself. */
export function signedMessage(kind: string, signed: { readonly signature?: unknown }): Buffer {
  const { signature: _signature, ...body } = signed;
  return Buffer.from(kind + canonicalJson(body));
}

function signatureOf(kind: string, body: object, signer: Signer): Signature {
  const value = signer.sign(signedMessage(kind, body)).toString('base64');
  return { algorithm: 'ed25519', keyId: signer.keyId, value };
}

export function hashOfLine(line: string): string {
  return digestOf(line);
}

export function recordedVerdict(verdict: Verdict): RecordedVerdict {
  if (verdict.kind === 'accepted') return verdict;
  return { kind: verdict.kind, code: verdict.code, blame: verdict.blame };
}
