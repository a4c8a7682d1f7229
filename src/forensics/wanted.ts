/** Whether the end of a run is kept for who has to look at it. Pure. */
import { createHash } from 'node:crypto';
import { limits } from '../core/limits.ts';
import type { EgressReport } from '../egress/report.ts';
import type { ForensicsCapture } from '../profile/profile.ts';
import type { Verdict } from '../validate/verdict.ts';

export interface WantedInput {
  readonly runId: string;
  /** Asked for by whoever runs the event. */
  readonly keep: boolean;
  /** Of its profile; undefined when the run ended before it had one. */
  readonly capture: ForensicsCapture | undefined;
  readonly verdict: Verdict;
  readonly network: EgressReport | undefined;
}

/** Why it is kept, in words; undefined: it is not. */
export function wantedBecause({ runId, keep, capture = 'never', verdict, network }: WantedInput): string | undefined {
  if (keep) return 'asked for';
  if (capture === 'never') return undefined;
  if (capture === 'always') return 'the profile keeps every run';
  const violation = violationOf(verdict, network);
  if (violation !== undefined) return violation;
  return capture === 'sample' && isSample(runId) ? 'one of a sample' : undefined;
}

/** What a function does that an honest one does not. A bug is none: it throws, is slow, returns the wrong shape. */
function violationOf(verdict: Verdict, network: EgressReport | undefined): string | undefined {
  if (verdict.kind !== 'accepted' && verdict.blame === 'guest') return `violation: ${verdict.code}`;
  const denied = (network?.totals.denied ?? 0) + (network?.totals.queriesDenied ?? 0);
  return denied > 0 ? `violation: ${denied} denied connections and names` : undefined;
}

/** The same run is always in the sample, or never. */
function isSample(runId: string): boolean {
  const share = createHash('sha256').update(runId).digest().readUInt32BE(0) / 2 ** 32;
  return share < 1 / limits.snapshotSampleOf;
}
