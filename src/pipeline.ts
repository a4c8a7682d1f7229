/**
 * The journey of one event. Start reading here.
 *
 *   event ──accept──▶ Event ──profile──▶ Profile ──clone──▶ Clone ──bridge──▶ proven Clone ──execute──▶ Execution
 *         ──validate─▶ Verdict ──release──▶ Release ──seal──▶ Evidence
 *
 * run.ts decides what comes next and the stages do it. This file stands between them: it carries out each effect, tells
 * what came of it, watches the deadline, and sees to it that nothing that a stage does or throws can keep an accepted
 * event from being released and sealed. Work is never abandoned: an interrupted stage is told so, and waited for.
 */
import { proofMismatch } from './bridge/deliver.ts';
import type { CloneContext } from './clone/clone.ts';
import { asMayflyError, MayflyError } from './core/errors.ts';
import { limits } from './core/limits.ts';
import { Journey } from './journey.ts';
import { begin, isOver, step } from './run.ts';
import type { RunEffect, RunInput, RunState } from './run.ts';
import type { Release } from './release/release.ts';
import type { Outcome, RunObserver, RunRequest, Stages } from './stages.ts';
import { verdictOf } from './validate/verdict.ts';

/** Rejects only when the event was not accepted; every accepted event has an Outcome, whatever becomes of it. */
export async function runEvent(stages: Stages, request: RunRequest, observer: RunObserver = {}): Promise<Outcome> {
  const event = stages.accept(request.event, request.runId);
  const journey = new Journey({ stages, request, observer, event, ...(await stages.open(event)) });
  let [state, effects] = begin();
  for (let round = 0; !isOver(state); round++) {
    if (round > limits.runRoundsMax) throw new Error(`pipeline: run ${event.runId} does not end in ${state.at}`);
    const input = await carryOut(journey, effects);
    [state, effects] = advance(state, input, request.signal?.aborted === true);
    if ('attempts' in state) journey.attempts = state.attempts;
  }
  await carryOut(journey, effects);
  return journey.outcome(state.at, state.verdict);
}

/** An interruption outranks whatever a stage has answered meanwhile, except that something was released or sealed. */
function advance(state: RunState, input: RunInput, interrupted: boolean): ReturnType<typeof step> {
  if (!interrupted) return step(state, input);
  const [stopped, effects] = step(state, { is: 'interrupted' });
  return effects.length > 0 ? [stopped, effects] : step(stopped, input);
}

/** Carries out effects in order; the last one has the answer, or the first that fails. */
async function carryOut(journey: Journey, effects: readonly RunEffect[]): Promise<RunInput> {
  let answer: RunInput | undefined;
  try {
    for (const effect of effects) answer = await perform(journey, effect);
  } catch (thrown) {
    return failure(asMayflyError(thrown));
  }
  return answer ?? failure(new MayflyError('E_INTERNAL', 'pipeline: an effect without an answer'));
}

function failure(error: MayflyError): RunInput {
  return { is: 'failed', verdict: verdictOf(error) };
}

async function perform(journey: Journey, effect: RunEffect): Promise<RunInput | undefined> {
  const { stages, request, event, ledger, journal } = journey;
  switch (effect.do) {
    case 'profile': {
      journey.profile = await journey.timed('profile', () => stages.profile(event, request));
      return { is: 'profiled', digest: journey.profile.digest };
    }
    case 'clone': {
      Object.assign(journey, { attempt: effect.attempt, clone: undefined, proof: undefined });
      const profile = journey.need(journey.profile, 'profile');
      const order = { runId: event.runId, profile, workload: request.workload, ledger, attempt: effect.attempt };
      const timed: CloneContext['timed'] = (stage, work) => journey.timed(stage, work);
      journey.clone = await stages.clone(order, { signal: stopped(request), timed });
      return { is: 'cloned' };
    }
    case 'bridge': {
      const { clone, profile } = journey.ready();
      journey.proof = await journey.timed('proof', () => stages.bridge(clone, profile, request, stopped(request)));
      return journey.proof.differences.length === 0 ? { is: 'proven' } : failure(proofMismatch(journey.proof));
    }
    case 'deliver':
      return await journey.timed('execute', () => deliver(journey));
    case 'validate': {
      const execution = journey.need(journey.execution, 'execution');
      const profile = journey.need(journey.profile, 'profile');
      journey.validation = await journey.timed('validate', () => stages.validate(execution, profile, request));
      return { is: 'judged', verdict: journey.validation.verdict };
    }
    case 'capture':
      return void (await journey.capture(effect.verdict));
    case 'release': {
      const release = await journey.timed('release', () => stages.release(ledger)).catch(unverified);
      journey.addRelease(release);
      return { is: 'released', verified: release.verified };
    }
    case 'seal':
      try {
        journey.evidence = await stages.seal(journey.draft(effect.verdict));
        return { is: 'written', hash: journey.evidence.hash };
      } catch (thrown) {
        return { is: 'unwritten', reason: asMayflyError(thrown).message };
      }
    case 'journal':
      return void (await journal.append(effect.entry, { sync: true }));
    case 'note':
      return void (await journal.append(effect.entry).catch(() => {}));
    case 'retry':
      return void journey.tell((observer) => observer.retry?.(effect.attempt));
    case 'close':
      return void (await journal.remove().catch(() => {}));
  }
}

function unverified(thrown: unknown): Release {
  return { verified: false, released: [], left: [`everything: ${asMayflyError(thrown).message}`] };
}

/** The only place that lets an event out of the host, under the only clock that can end it. */
async function deliver(journey: Journey): Promise<RunInput> {
  const { stages, request, event } = journey;
  const { clone, profile } = journey.ready();
  if (journey.delivered) throw new Error('pipeline: this event was delivered before');
  journey.delivered = true;
  const { wallMillis } = profile.profile.limits;
  const broker = stages.egress(profile);
  journey.broker = broker;
  const overdue = new AbortController();
  const cancel = stages.clock.after(wallMillis, () => overdue.abort());
  try {
    journey.execution = await stages.execute(
      clone,
      {
        event,
        profile,
        workload: request.workload,
        broker,
        stdout: (chunk) => journey.logged('stdout', chunk),
        stderr: (chunk) => journey.logged('stderr', chunk),
      },
      stopped(request, overdue.signal),
    );
    return { is: 'executed' };
  } catch (thrown) {
    return overdue.signal.aborted ? { is: 'late', wallMillis } : failure(asMayflyError(thrown));
  } finally {
    cancel();
  }
}

function stopped({ signal }: RunRequest, overdue?: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, overdue].filter((each) => each !== undefined));
}
