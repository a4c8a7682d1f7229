/** Goal: what becomes of an event after an attempt or a crash is always one thing, and the right one. Pure. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errorTable } from '../../../src/core/errors.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import { limits } from '../../../src/core/limits.ts';
import { decideEnd, planRecovery } from '../../../src/serve/plan.ts';
import type { Attempted, EndFacts } from '../../../src/serve/plan.ts';
import type { StoredEvent } from '../../../src/serve/store/event.ts';
import type { Outcome } from '../../../src/stages.ts';
import { failed } from '../../../src/validate/verdict.ts';

const retry = { attempts: 3, backoffMillis: 1000, afterDelivery: true };
const facts: EndFacts = { attempts: 1, retry, nowMillis: 50_000, chance: 0, stopping: false };

function ended(code: ErrorCode, delivered = true): Attempted {
  const timeline = delivered ? [{ stage: 'execute', at: 0, millis: 1, attempt: 1 }] : [];
  const outcome = { verdict: failed(code, 'm'), timeline, evidence: { hash: 'h' } } as unknown as Outcome;
  return { is: 'outcome', outcome, raw: false };
}

test('only failures that are neither the event\'s nor the function\'s are tried again', () => {
  for (const [code, { blame }] of Object.entries(errorTable)) {
    const { state } = decideEnd(ended(code as ErrorCode), facts);
    assert.equal(state, blame === 'host' || blame === 'operator' ? 'queued' : 'failed', code);
  }
});

test('a second attempt comes later each time, spread, and never after the last one', () => {
  const due = (changes: Partial<EndFacts>): number => {
    const end = decideEnd(ended('E_CLONE_FAILED'), { ...facts, ...changes });
    return end.state === 'queued' ? end.dueMillis - facts.nowMillis : -1;
  };
  assert.deepEqual([due({}), due({ attempts: 2 }), due({ attempts: 3 })], [1000, 2000, -1]);
  assert.equal(due({ chance: 0.5 }), 1250);
  assert.equal(due({ attempts: 9, retry: { ...retry, attempts: 10 } }), limits.retryBackoffMillisMax);
});

test('afterDelivery: false keeps an event that a function may have seen from being run again', () => {
  const once = { ...facts, retry: { ...retry, afterDelivery: false } };
  assert.equal(decideEnd(ended('E_CLONE_FAILED', false), once).state, 'queued');
  assert.equal(decideEnd(ended('E_EVIDENCE_WRITE', true), once).state, 'failed');
  assert.equal(decideEnd({ is: 'abandoned', delivered: true }, once).state, 'failed');
  assert.equal(decideEnd({ is: 'abandoned', delivered: false }, once).state, 'queued');
  assert.equal(decideEnd({ is: 'refused', verdict: failed('E_DISK_SPACE', 'm') }, once).state, 'queued');
});

test('a stop of the service is nobody\'s fault: what it interrupts waits for the next start', () => {
  assert.equal(decideEnd(ended('E_INTERRUPTED'), facts).state, 'failed');
  const stopping = { ...facts, stopping: true };
  const end = decideEnd(ended('E_INTERRUPTED'), stopping);
  assert.deepEqual([end.state, end.state === 'queued' && end.dueMillis], ['queued', facts.nowMillis]);
  assert.equal(
    decideEnd(ended('E_INTERRUPTED', false), { ...stopping, attempts: 3 }).state,
    'queued',
    'not even counted',
  );
});

test('property: recovery has one step for each event, and the same ones again', () => {
  const event = fc.record({
    id: fc.uuid(), run: fc.option(fc.constantFrom('r1', 'r2', 'r3')), attempts: fc.integer({ min: 1, max: 12 }),
  });
  const known = fc.option(
    fc.record({
      attempts: fc.integer({ min: 1, max: 10 }),
      backoffMillis: fc.integer({ min: 0, max: 60_000 }),
      afterDelivery: fc.boolean(),
    }),
    { nil: undefined },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(event, known)), fc.subarray(['r1', 'r2', 'r3']), (found, undelivered) => {
      const abandoned = found.map(([each, policy]) => ({ event: each as unknown as StoredEvent, retry: policy }));
      const recovery = { undelivered: new Set(undelivered), nowMillis: 9, chance: () => 0.25 };
      const steps = planRecovery(abandoned, recovery);
      assert.deepEqual(
        steps.map(({ id }) => id),
        found.map(([{ id }]) => id),
      );
      assert.deepEqual(planRecovery(abandoned, recovery), steps);
      for (const [index, { end }] of steps.entries()) {
        const [{ attempts, run }, policy] = found[index] ?? assert.fail();
        const may =
          policy !== undefined &&
          attempts < policy.attempts &&
          (policy.afterDelivery || undelivered.includes(String(run)));
        assert.equal(end.state, may ? 'queued' : 'failed');
        if (end.state === 'failed') assert.equal(end.failure.code, 'E_ABANDONED');
      }
    }),
  );
});
