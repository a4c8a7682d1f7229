/**
 * A Verdict is how a run ended, as a value: guest misbehaviour, a caller's bug and a host failure all become one, so
 * that every accepted event reaches its evidence by the same road.
 */
import { errorTable } from '../core/errors.ts';
import type { Blame, ErrorCode, MayflyError } from '../core/errors.ts';

export interface Failure {
  readonly code: ErrorCode;
  readonly blame: Blame;
  /** What happened, one line. Text from a guest in it is capped and free of control characters. */
  readonly message: string;
  /** What to do about it, one sentence. */
  readonly remedy: string;
  /** Text below the message: a stack, the end of a console. Same rules as `message`, may have several lines. */
  readonly detail?: string;
}

/** Something about an accepted output that its reader should know. In our own words. */
export interface Note {
  readonly check: 'credential' | 'key' | 'neutralised';
  readonly what: string;
}

export type Verdict =
  /** The function returned and its output passed every check, perhaps with something to note. */
  | { readonly kind: 'accepted'; readonly notes?: readonly Note[] }
  /** There is no output. */
  | ({ readonly kind: 'failed' } & Failure)
  /** There was output, and it is not given out; its digest is in the evidence. */
  | ({ readonly kind: 'withheld' } & Failure);

export type FailedVerdict = Exclude<Verdict, { kind: 'accepted' }>;

export const accepted: Verdict = Object.freeze({ kind: 'accepted' });

export interface FailureOptions {
  readonly remedy?: string | undefined;
  readonly detail?: string | undefined;
  readonly blame?: Blame;
}

function failure(code: ErrorCode, message: string, options: FailureOptions): Failure {
  const { remedy = errorTable[code].remedy, detail, blame = errorTable[code].blame } = options;
  return { code, blame, message, remedy, ...(detail === undefined || detail === '' ? {} : { detail }) };
}

export function failed(code: ErrorCode, message: string, options: FailureOptions = {}): FailedVerdict {
  return { kind: 'failed', ...failure(code, message, options) };
}

export function withheld(code: ErrorCode, message: string, options: FailureOptions = {}): FailedVerdict {
  return { kind: 'withheld', ...failure(code, message, options) };
}

export function verdictOf(error: MayflyError): FailedVerdict {
  return failed(error.code, error.message, { remedy: error.remedy, detail: error.detail, blame: error.blame });
}

/** Exit code of the command line for this verdict (core/errors.ts lists their meanings). */
export function exitCodeOf(verdict: Verdict): number {
  return verdict.kind === 'accepted' ? 0 : errorTable[verdict.code].exit;
}
