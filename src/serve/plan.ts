/** What becomes of an event after an attempt, and after a crash. Pure: the dispatcher and the recovery carry it out. */
import type { Retry } from '../function/manifest.ts';
import { limits } from '../core/limits.ts';
import type { Outcome } from '../stages.ts';
import { failed } from '../validate/verdict.ts';
import type { FailedVerdict } from '../validate/verdict.ts';
import type { EventEnd, EventFailure, StoredEvent } from './store/event.ts';

/** What is known after an attempt: an outcome, or why there was none. */
export type Attempted =
  | { readonly is: 'outcome'; readonly outcome: Outcome; readonly raw: boolean }
  | { readonly is: 'refused'; readonly verdict: FailedVerdict }
  /** Its process died. `delivered`: the function may have seen the event. */
  | { readonly is: 'abandoned'; readonly delivered: boolean };

export interface EndFacts {
  /** Runs of this event, this one included. */
  readonly attempts: number;
  readonly retry: Retry;
  readonly nowMillis: number;
  /** In [0, 1): spreads what would otherwise come back all at once. */
  readonly chance: number;
  /** The service is about to stop and has ended the run itself. */
  readonly stopping: boolean;
}

/**
 * Only failures that are neither the event's nor the function's are tried again: those of the host, and of the machine
 * that an operator has to mend.
 */
export function decideEnd(attempted: Attempted, facts: EndFacts): EventEnd {
  if (attempted.is === 'outcome' && attempted.outcome.verdict.kind === 'accepted') {
    const { output = Buffer.alloc(0), evidence } = attempted.outcome;
    return { state: 'succeeded', output, raw: attempted.raw, evidence: evidence?.hash ?? null };
  }
  const verdict = verdictOf(attempted);
  const failure = failureOf(verdict);
  const delivered = wasDelivered(attempted);
  const ownStop = facts.stopping && verdict.code === 'E_INTERRUPTED';
  const ours = verdict.blame === 'host' || verdict.blame === 'operator' || ownStop;
  const left = facts.attempts < facts.retry.attempts || (ownStop && !delivered);
  if (ours && left && (facts.retry.afterDelivery || !delivered)) {
    return { state: 'queued', dueMillis: facts.nowMillis + (ownStop ? 0 : backoff(facts)), failure };
  }
  const evidence = attempted.is === 'outcome' ? (attempted.outcome.evidence?.hash ?? null) : null;
  return { state: 'failed', failure, evidence };
}

function backoff({ attempts, retry, chance }: EndFacts): number {
  const doubled = retry.backoffMillis * 2 ** Math.max(0, attempts - 1);
  return Math.round(Math.min(doubled, limits.retryBackoffMillisMax) * (1 + chance / 2));
}

function verdictOf(attempted: Attempted): FailedVerdict {
  switch (attempted.is) {
    case 'refused':
      return attempted.verdict;
    case 'abandoned':
      return failed('E_ABANDONED', 'The service died while the event was under way.');
    case 'outcome': {
      const { verdict } = attempted.outcome;
      return verdict.kind === 'accepted' ? failed('E_INTERNAL', 'an accepted verdict is no failure') : verdict;
    }
  }
}

function wasDelivered(attempted: Attempted): boolean {
  if (attempted.is === 'abandoned') return attempted.delivered;
  return attempted.is === 'outcome' && attempted.outcome.timeline.some(({ stage }) => stage === 'execute');
}

function failureOf({ code, blame, message, remedy, detail }: FailedVerdict): EventFailure {
  return { code, blame, message, remedy, ...(detail === undefined ? {} : { detail }) };
}

// ---- after a crash --------------------------------------------------------------------------------------------------

/** An event that was under way when the service died. */
export interface Abandoned {
  readonly event: StoredEvent;
  /** Undefined: its function or version is gone. */
  readonly retry: Retry | undefined;
}

/** What `reclaim` says of runs that it has ended; of any other the worst is assumed. */
export interface ReclaimFacts {
  /** Run ids that were certainly not delivered. */
  readonly undelivered: ReadonlySet<string>;
  readonly nowMillis: number;
  readonly chance: () => number;
}

export interface RecoveryStep {
  readonly id: string;
  readonly run: string;
  readonly end: EventEnd;
}

/** One step for each, and the same steps again when it is asked again: a crash during recovery changes nothing. */
export function planRecovery(found: readonly Abandoned[], facts: ReclaimFacts): RecoveryStep[] {
  return found.map(({ event, retry }) => {
    const run = event.run ?? '';
    const attempted: Attempted = { is: 'abandoned', delivered: !facts.undelivered.has(run) };
    const never: Retry = { attempts: 0, backoffMillis: 0, afterDelivery: false };
    const end = decideEnd(attempted, {
      attempts: event.attempts,
      retry: retry ?? never,
      nowMillis: facts.nowMillis,
      chance: facts.chance(),
      stopping: false,
    });
    return { id: event.id, run, end };
  });
}
