/**
 * Goal: whatever a run is told, in whatever order, it delivers at most once, seals only what was verified, and ends.
 * Method: random input sequences against the pure step, then the same with a world that answers effects at random.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { limits } from '../../../src/core/limits.ts';
import { begin, isOver, step } from '../../../src/run.ts';
import type { RunEffect, RunInput, RunState } from '../../../src/run.ts';
import { accepted, failed, withheld } from '../../../src/validate/verdict.ts';

const failures = [
  failed('E_CLONE_FAILED', 'x'), failed('E_CLONE_NOT_UNIQUE', 'x'), failed('E_PROOF_MISMATCH', 'x'),
  failed('E_GUEST_DIED', 'x'), failed('E_GUEST_SILENT', 'x'), failed('E_GUEST_PROTOCOL', 'x'),
  failed('E_INTERNAL', 'x'), failed('E_TEMPLATE_TAMPERED', 'x'), failed('E_LIMIT_INVALID', 'x'),
];
const anyFailure = fc.constantFrom(...failures).map((verdict): RunInput => ({ is: 'failed', verdict }));
const anyInput: fc.Arbitrary<RunInput> = fc.oneof(
  // Forward steps more often than not: most sequences of equally likely inputs would end before the delivery.
  { weight: 20, arbitrary: fc.constantFrom<RunInput>(
    { is: 'profiled', digest: 'sha256:0' }, { is: 'cloned' }, { is: 'proven' }, { is: 'executed' },
  ) },
  { weight: 10, arbitrary: fc.constantFrom<RunInput>(
    { is: 'judged', verdict: accepted }, { is: 'judged', verdict: withheld('E_OUTPUT_INVALID', 'x') },
    { is: 'late', wallMillis: 1 }, { is: 'interrupted' }, { is: 'released', verified: true },
    { is: 'released', verified: false }, { is: 'written', hash: 'sha256:0' }, { is: 'unwritten', reason: 'x' },
  ) },
  { weight: 1, arbitrary: anyFailure },
);

interface Trace {
  readonly state: RunState;
  readonly effects: readonly RunEffect[];
  readonly visited: readonly RunState[];
}

function feed(inputs: readonly RunInput[]): Trace {
  let [state, effects] = begin();
  const all = [...effects];
  const visited: RunState[] = [state];
  for (const input of inputs) {
    [state, effects] = step(state, input);
    all.push(...effects);
    visited.push(state);
  }
  return { state, effects: all, visited };
}

function count(effects: readonly RunEffect[], what: RunEffect['do']): number {
  return effects.filter((effect) => effect.do === what).length;
}

test('any inputs: at most one delivery, journalled right before it, and none after a release', () => {
  let delivered = 0;
  fc.assert(fc.property(fc.array(anyInput, { maxLength: 60, size: 'max' }), (inputs) => {
    const { effects } = feed(inputs);
    assert.ok(count(effects, 'deliver') <= 1);
    delivered += count(effects, 'deliver');
    const at = effects.findIndex((effect) => effect.do === 'deliver');
    if (at === -1) return;
    const before = effects[at - 1];
    assert.ok(before?.do === 'journal' && before.entry.kind === 'delivering');
    assert.equal(count(effects.slice(at), 'clone'), 0, 'no second clone once delivered');
  }), { numRuns: 3000 });
  assert.ok(delivered > 300, `only ${delivered} of the sequences came that far`);
});

test('any inputs: sealed only right after a verified release and a written record', () => {
  let sealed = 0;
  fc.assert(fc.property(fc.array(anyInput, { maxLength: 60, size: 'max' }), (inputs) => {
    const { state, visited } = feed(inputs);
    if (state.at === 'sealed') sealed += 1;
    const sealing = visited.find((each) => each.at === 'sealing');
    if (state.at === 'sealed') assert.ok(sealing?.at === 'sealing' && sealing.verified);
    if (isOver(state)) assert.ok(sealing !== undefined, 'no way out but through sealing');
    // One verified release for every clone that was asked for, before the next one and before the end.
    let open = 0;
    for (const effect of feed(inputs).effects) {
      if (effect.do === 'clone') assert.equal(open++, 0);
      if (effect.do === 'release') open = 0;
      if (effect.do === 'seal') assert.equal(open, 0);
    }
  }), { numRuns: 3000 });
  assert.ok(sealed > 100, `only ${sealed} of the sequences came that far`);
});

test('any inputs: effects are bounded, and nothing happens after the end', () => {
  fc.assert(fc.property(fc.array(anyInput, { maxLength: 200, size: 'max' }), (inputs) => {
    const { effects } = feed(inputs);
    assert.ok(count(effects, 'clone') <= limits.cloneAttemptsMax);
    assert.ok(count(effects, 'release') <= limits.cloneAttemptsMax);
    assert.ok(count(effects, 'seal') <= 1);
    assert.ok(effects.length < limits.runRoundsMax);
  }), { numRuns: 3000 });
});

/** A world that answers every effect, well or badly, as `choose` says. */
function answer(effect: RunEffect, choose: number): RunInput {
  const bad = failures[choose % failures.length] ?? failed('E_INTERNAL', 'x');
  const well = choose % 3 !== 0;
  switch (effect.do) {
    case 'profile': return well ? { is: 'profiled', digest: 'd' } : { is: 'failed', verdict: bad };
    case 'clone': return well ? { is: 'cloned' } : { is: 'failed', verdict: bad };
    case 'bridge': return well ? { is: 'proven' } : { is: 'failed', verdict: bad };
    case 'deliver':
      if (well) return { is: 'executed' };
      return choose % 2 === 0 ? { is: 'late', wallMillis: 5 } : { is: 'failed', verdict: bad };
    case 'validate': return well ? { is: 'judged', verdict: accepted } : { is: 'failed', verdict: bad };
    case 'release': return { is: 'released', verified: well };
    case 'seal': return well ? { is: 'written', hash: 'h' } : { is: 'unwritten', reason: 'disk' };
    default: assert.fail(`${effect.do} has no answer`);
  }
}

test('every run terminates when each effect is answered, with interruptions anywhere', () => {
  const anyChoices = fc.array(fc.nat(), { minLength: 40, maxLength: 40 });
  fc.assert(fc.property(anyChoices, fc.nat({ max: 14 }), (choices, interruptAt) => {
    let [state, effects] = begin();
    for (let round = 0; !isOver(state); round++) {
      assert.ok(round < limits.runRoundsMax, `stuck in ${state.at}`);
      const last = effects.at(-1);
      assert.ok(last !== undefined, `${state.at} waits for nothing`);
      const input = answer(last, choices[round] ?? 1);
      if (round === interruptAt) {
        const interrupted = step(state, { is: 'interrupted' });
        if (interrupted[1].length > 0) {
          [state, effects] = interrupted;
          continue;
        }
        state = interrupted[0];
      }
      [state, effects] = step(state, input);
    }
  }), { numRuns: 3000 });
});

test('the happy path visits the states in the order of the diagram', () => {
  const { visited, effects } = feed([
    { is: 'profiled', digest: 'd' }, { is: 'cloned' }, { is: 'proven' }, { is: 'executed' },
    { is: 'judged', verdict: accepted }, { is: 'released', verified: true }, { is: 'written', hash: 'h' },
  ]);
  assert.deepEqual(
    visited.map(({ at }) => at),
    ['accepted', 'profiled', 'cloned', 'bridged', 'validating', 'releasing', 'sealing', 'sealed'],
  );
  const answered = effects.filter((effect) => !['journal', 'note', 'close', 'capture'].includes(effect.do));
  assert.deepEqual(
    answered.map((effect) => effect.do),
    ['profile', 'clone', 'bridge', 'deliver', 'validate', 'release', 'seal'],
  );
});

test('a clone that fails before delivery is released, reported and replaced once', () => {
  const retried = feed([
    { is: 'profiled', digest: 'd' }, { is: 'failed', verdict: failed('E_CLONE_NOT_UNIQUE', 'twin') },
    { is: 'released', verified: true },
  ]);
  assert.deepEqual(retried.state, {
    at: 'profiled', attempts: [{ attempt: 1, failure: { code: 'E_CLONE_NOT_UNIQUE', message: 'twin' } }],
  });
  assert.deepEqual(retried.effects.slice(-2).map((effect) => effect.do), ['retry', 'clone']);
  const [again] = step(retried.state, { is: 'failed', verdict: failed('E_CLONE_NOT_UNIQUE', 'twin') });
  assert.ok(again.at === 'releasing' && again.next === 'end' && again.attempts.length === 2);
});

test('no second clone when the first one is still there, or when another would not help', () => {
  const stuck = feed([
    { is: 'profiled', digest: 'd' }, { is: 'failed', verdict: failed('E_CLONE_FAILED', 'x') },
    { is: 'released', verified: false },
  ]);
  assert.ok(stuck.state.at === 'sealing' && !stuck.state.verified);
  for (const code of ['E_TEMPLATE_TAMPERED', 'E_INTERNAL', 'E_QEMU_MISSING', 'E_DISK_SPACE'] as const) {
    const { state } = feed([{ is: 'profiled', digest: 'd' }, { is: 'failed', verdict: failed(code, 'x') }]);
    assert.ok(state.at === 'releasing' && state.next === 'end', code);
  }
});

test('a guest that fails before delivery is the host’s fault, afterwards its own', () => {
  const died: RunInput = { is: 'failed', verdict: failed('E_GUEST_DIED', 'gone') };
  const before = feed([{ is: 'profiled', digest: 'd' }, { is: 'cloned' }, died]).state;
  assert.ok(before.at === 'releasing' && before.verdict.kind === 'failed');
  assert.equal(before.verdict.code, 'E_CLONE_FAILED');
  assert.equal(before.verdict.blame, 'host');
  const after = feed([{ is: 'profiled', digest: 'd' }, { is: 'cloned' }, { is: 'proven' }, died]).state;
  assert.ok(after.at === 'releasing' && after.verdict.kind === 'failed');
  assert.equal(after.verdict.code, 'E_GUEST_DIED');
});

test('an interruption during the release of a failed attempt ends the run instead of trying again', () => {
  const { state } = feed([
    { is: 'profiled', digest: 'd' }, { is: 'failed', verdict: failed('E_CLONE_FAILED', 'x') }, { is: 'interrupted' },
    { is: 'released', verified: true },
  ]);
  assert.ok(state.at === 'sealing' && state.verdict.kind === 'failed');
  assert.equal(state.verdict.code, 'E_INTERRUPTED');
});

test('without evidence there is no result', () => {
  const { state } = feed([
    { is: 'profiled', digest: 'd' }, { is: 'cloned' }, { is: 'proven' }, { is: 'executed' },
    { is: 'judged', verdict: accepted }, { is: 'released', verified: true }, { is: 'unwritten', reason: 'disk full' },
  ]);
  assert.ok(state.at === 'quarantined' && state.verdict.kind === 'failed');
  assert.equal(state.verdict.code, 'E_EVIDENCE_WRITE');
});
