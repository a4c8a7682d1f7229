/**
 * The states of one run, and nothing else: no time, no I/O, no surprise. pipeline.ts carries out the effects and feeds
 * back what came of them.
 *
 *              profile      clone      bridge      deliver      validate
 *   accepted ─────────▶ profiled ───▶ cloned ───▶ bridged ───▶ validating
 *       │                 │  ▲          │            │             │
 *       │ failed          │  │ again    │ failed     │ failed,     │ judged,
 *       │                 │  │ (before  │            │ late        │ failed
 *       ▼                 ▼  │ delivery)▼            ▼             ▼          interrupted: from every state above
 *     ┌────────────────────────────────────────────────────────────────┐
 *     │                           releasing                            │
 *     └────────────────────────────────────────────────────────────────┘
 *                                     │ released
 *                                     ▼
 *                                  sealing ──────▶ sealed        release verified and evidence written
 *                                     └──────────▶ quarantined   anything else
 *
 * accepted     the event is on record and must end with evidence
 * profiled     what it may do is decided; there is no usable clone yet
 * cloned       a clone has proved to be unique; it has not yet proved its limits
 * bridged      the event is on its way: from here on there is no second attempt
 * validating   the function has ended; its output is not trusted yet
 * releasing    everything is given back; to end the run, or to try again with another clone
 * sealing      the verdict stands and is written down
 *
 * A failure is not a state. It is part of the verdict, so every run takes the same road out.
 */
import type { ErrorCode } from './core/errors.ts';
import { limits } from './core/limits.ts';
import type { Attempt } from './evidence/record.ts';
import type { JournalEntry } from './journal/entry.ts';
import { failed } from './validate/verdict.ts';
import type { FailedVerdict, Verdict } from './validate/verdict.ts';

export type RunState =
  | { readonly at: 'accepted' }
  | { readonly at: 'profiled'; readonly attempts: readonly Attempt[] }
  | { readonly at: 'cloned'; readonly attempts: readonly Attempt[] }
  | { readonly at: 'bridged'; readonly attempts: readonly Attempt[] }
  | { readonly at: 'validating'; readonly attempts: readonly Attempt[] }
  | {
      readonly at: 'releasing';
      readonly attempts: readonly Attempt[];
      /** `again`: the verdict is only that of the last attempt, unless something keeps the next one from happening. */
      readonly next: 'end' | 'again';
      readonly verdict: Verdict;
    }
  | { readonly at: 'sealing'; readonly verdict: Verdict; readonly verified: boolean }
  | { readonly at: 'sealed'; readonly verdict: Verdict }
  | { readonly at: 'quarantined'; readonly verdict: Verdict };

export type RunInput =
  | { readonly is: 'profiled'; readonly digest: string }
  | { readonly is: 'cloned' }
  | { readonly is: 'proven' }
  | { readonly is: 'executed' }
  | { readonly is: 'judged'; readonly verdict: Verdict }
  | { readonly is: 'failed'; readonly verdict: FailedVerdict }
  /** The function's wall time is over. */
  | { readonly is: 'late'; readonly wallMillis: number }
  /** Ctrl-C, or a caller that has gone away. */
  | { readonly is: 'interrupted' }
  | { readonly is: 'released'; readonly verified: boolean }
  | { readonly is: 'written'; readonly hash: string }
  | { readonly is: 'unwritten'; readonly reason: string };

/** What to do, in this order. All but `journal`, `note`, `capture`, `retry` and `close` answer with an input. */
export type RunEffect =
  | { readonly do: 'profile' }
  | { readonly do: 'clone'; readonly attempt: number }
  | { readonly do: 'bridge' }
  | { readonly do: 'deliver' }
  | { readonly do: 'validate' }
  /** Keeps what has to be looked at, if anything: before the clone is gone, and whatever comes of it. No answer. */
  | { readonly do: 'capture'; readonly verdict: Verdict }
  | { readonly do: 'release' }
  | { readonly do: 'seal'; readonly verdict: Verdict }
  /** Must be written, and on the medium, before the next effect; otherwise the answer is `failed`. */
  | { readonly do: 'journal'; readonly entry: JournalEntry }
  /** Written if possible: nothing may keep a run from being released. */
  | { readonly do: 'note'; readonly entry: JournalEntry }
  | { readonly do: 'retry'; readonly attempt: Attempt }
  /** The run is sealed: its journal has served. */
  | { readonly do: 'close' };

export type Step = readonly [RunState, readonly RunEffect[]];

export function begin(): Step {
  return [{ at: 'accepted' }, [{ do: 'profile' }]];
}

export function isOver(state: RunState): state is Extract<RunState, { at: 'sealed' | 'quarantined' }> {
  return state.at === 'sealed' || state.at === 'quarantined';
}

/** An input that means nothing in this state, because it came too late, changes nothing. */
export function step(state: RunState, input: RunInput): Step {
  switch (state.at) {
    case 'accepted':
      if (input.is === 'profiled') {
        const entry = { kind: 'profiled', digest: input.digest } as const;
        return [{ at: 'profiled', attempts: [] }, [{ do: 'journal', entry }, { do: 'clone', attempt: 1 }]];
      }
      return giveUp(state, [], input);
    case 'profiled':
      if (input.is === 'cloned') return [{ at: 'cloned', attempts: state.attempts }, [{ do: 'bridge' }]];
      return giveUpClone(state, state.attempts, input);
    case 'cloned':
      if (input.is === 'proven') {
        const attempts = [...state.attempts, { attempt: state.attempts.length + 1 }];
        const entry = { kind: 'delivering' } as const;
        return [{ at: 'bridged', attempts }, [{ do: 'journal', entry }, { do: 'deliver' }]];
      }
      return giveUpClone(state, state.attempts, input);
    case 'bridged':
      if (input.is === 'executed') return [{ at: 'validating', attempts: state.attempts }, [{ do: 'validate' }]];
      if (input.is === 'late') return captureFirst(release(state.attempts, timedOut(input.wallMillis)));
      return captureFirst(giveUp(state, state.attempts, input));
    case 'validating':
      if (input.is === 'judged') return captureFirst(release(state.attempts, input.verdict));
      return captureFirst(giveUp(state, state.attempts, input));
    case 'releasing':
      if (input.is === 'released') return afterRelease(state, input.verified);
      if (input.is === 'interrupted' && state.next === 'again') {
        return [{ ...state, next: 'end', verdict: interruption }, []];
      }
      return [state, []];
    case 'sealing':
      return afterSeal(state, input);
    case 'sealed':
    case 'quarantined':
      return [state, []];
  }
}

const interruption = failed('E_INTERRUPTED', 'The run was interrupted.');

function timedOut(wallMillis: number): Verdict {
  return failed('E_FUNCTION_TIMEOUT', `The function did not finish within ${wallMillis} ms.`);
}

function giveUp(state: RunState, attempts: readonly Attempt[], input: RunInput): Step {
  if (input.is === 'failed') return release(attempts, input.verdict);
  if (input.is === 'interrupted') return release(attempts, interruption);
  return [state, []];
}

/** Failures that another clone may not have. What the machine lacks, or what the caller did, it has again. */
const ANOTHER_CLONE_MAY_HELP: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'E_CLONE_FAILED', 'E_CLONE_NOT_UNIQUE', 'E_PROOF_MISMATCH', 'E_GUEST_PROTOCOL', 'E_GUEST_DIED', 'E_GUEST_SILENT',
]);

/** Before delivery: the event has not been seen by anything, so a second clone may get it. */
function giveUpClone(state: RunState, attempts: readonly Attempt[], input: RunInput): Step {
  if (input.is !== 'failed' && input.is !== 'interrupted') return [state, []];
  const verdict = input.is === 'failed' ? input.verdict : interruption;
  const attempt = attempts.length + 1;
  const tried = [...attempts, { attempt, failure: { code: verdict.code, message: verdict.message } }];
  const again = attempt < limits.cloneAttemptsMax && ANOTHER_CLONE_MAY_HELP.has(verdict.code);
  return release(tried, hostBlamed(verdict), again ? 'again' : 'end');
}

/** No code of the customer has run yet: a guest that misbehaves now is the host's own. */
function hostBlamed(verdict: FailedVerdict): Verdict {
  if (verdict.blame !== 'guest') return verdict;
  const message = `The clone failed before the event reached it: ${verdict.message}`;
  return failed('E_CLONE_FAILED', message, { detail: verdict.detail });
}

function release(attempts: readonly Attempt[], verdict: Verdict, next: 'end' | 'again' = 'end'): Step {
  const code = verdict.kind === 'accepted' ? 'OK' : verdict.code;
  return [
    { at: 'releasing', attempts, next, verdict },
    [{ do: 'note', entry: { kind: 'releasing', code } }, { do: 'release' }],
  ];
}

/** The function has had the event: what is left of it may be worth a look. Not for whoever has gone away. */
function captureFirst([state, effects]: Step): Step {
  if (state.at !== 'releasing' || state.verdict === interruption) return [state, effects];
  const capture: RunEffect = { do: 'capture', verdict: state.verdict };
  return [state, effects.flatMap((effect): RunEffect[] => (effect.do === 'release' ? [capture, effect] : [effect]))];
}

function afterRelease(state: Extract<RunState, { at: 'releasing' }>, verified: boolean): Step {
  const { attempts, verdict } = state;
  const note: RunEffect = { do: 'note', entry: { kind: 'released', verified } };
  const last = attempts.at(-1);
  if (state.next === 'again' && verified && last !== undefined) {
    const attempt = attempts.length + 1;
    return [{ at: 'profiled', attempts }, [note, { do: 'retry', attempt: last }, { do: 'clone', attempt }]];
  }
  return [{ at: 'sealing', verdict, verified }, [note, { do: 'seal', verdict }]];
}

function afterSeal(state: Extract<RunState, { at: 'sealing' }>, input: RunInput): Step {
  const { verdict, verified } = state;
  if (input.is === 'written') {
    // What is left keeps its journal without `sealed`, so that the next start of Mayfly tries to end it again.
    if (!verified) return [{ at: 'quarantined', verdict }, []];
    return [{ at: 'sealed', verdict }, [{ do: 'note', entry: { kind: 'sealed', hash: input.hash } }, { do: 'close' }]];
  }
  if (input.is === 'unwritten') {
    const withheld = 'The output is withheld: without evidence there is no result.';
    const was = verdict.kind === 'accepted' ? withheld : verdict.message;
    return [{ at: 'quarantined', verdict: failed('E_EVIDENCE_WRITE', input.reason, { detail: was }) }, []];
  }
  return [state, []];
}
