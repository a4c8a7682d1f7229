/** An event as the service keeps it: from its acceptance to its result, or to the dead letters. */
import type { ErrorCode, Blame } from '../../core/errors.ts';

/**
 * queued     on the medium, and not under way; also between two attempts
 * running    an attempt is under way, under the run id on record
 * succeeded  its validated output is on the medium
 * failed     it has ended without one: a dead letter, with its payload, until it is retried, purged or expires
 */
export type EventState = 'queued' | 'running' | 'succeeded' | 'failed';

/** Who has sent it, as rules see it and as rights to read it are decided by. */
export interface EventOrigin {
  readonly ip: string;
  /** Id of the API key, or what another source calls itself. */
  readonly principal: string;
}

export interface NewEvent {
  readonly id: string;
  readonly tenant: string;
  readonly function: string;
  /** Digest of the version that runs it; null: whichever is in use then. */
  readonly version: string | null;
  /** Of the caller, unique for one function of one tenant. */
  readonly key: string | null;
  /** Digest of what the key stands for. */
  readonly body: string;
  readonly origin: EventOrigin;
  readonly acceptedMillis: number;
  /** The CloudEvent, UTF-8 JSON. */
  readonly event: Uint8Array;
}

export interface EventFailure {
  readonly code: ErrorCode;
  readonly blame: Blame;
  readonly message: string;
  readonly remedy: string;
  readonly detail?: string;
}

/** How an attempt has ended. */
export type EventEnd =
  | {
      readonly state: 'succeeded';
      readonly output: Uint8Array;
      /** The output is bytes, not JSON. */
      readonly raw: boolean;
      /** Hash of the evidence record. */
      readonly evidence: string | null;
    }
  | { readonly state: 'failed'; readonly failure: EventFailure; readonly evidence: string | null }
  /** Another attempt, not before `dueMillis`. */
  | { readonly state: 'queued'; readonly dueMillis: number; readonly failure: EventFailure };

export interface StoredEvent {
  readonly id: string;
  readonly tenant: string;
  readonly function: string;
  readonly version: string | null;
  readonly state: EventState;
  readonly attempts: number;
  /** Of the attempt that is under way, or of the last one. */
  readonly run: string | null;
  readonly dueMillis: number;
  readonly acceptedMillis: number;
  readonly endedMillis: number | null;
  readonly origin: EventOrigin;
  readonly failure: EventFailure | null;
  readonly evidence: string | null;
  readonly raw: boolean;
  readonly eventBytes: number;
}

export type AcceptAnswer =
  | { readonly is: 'fresh'; readonly id: string }
  /** The key was used for the same body: this is its event. */
  | { readonly is: 'known'; readonly id: string }
  /** The key was used for another body. */
  | { readonly is: 'conflict' };
