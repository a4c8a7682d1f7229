/**
 * A7: a guest that ends itself in every way that a kernel has: triple fault, reset by chipset and keyboard controller,
 * reboot, panic, power-off, or a processor that is deaf for ever. Expected: one end, one VMM, no restart, the guest or
 * its function blamed, within the deadline. Method: guest/hostile.c in a real VM.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { isAlive } from '../vm/rig.ts';
import { openHostileGuest } from './hostile.ts';
import type { HostileGuest } from './hostile.ts';

let guest: HostileGuest;
before(async () => { guest = await openHostileGuest(); });
after(async () => { await guest?.close(); });

const ends = [
  ['triple', /stopped itself \(guest-reset\)/], ['reset', /stopped itself \(guest-reset\)/],
  ['keyboard', /stopped itself \(guest-reset\)/], ['reboot', /stopped itself \(guest-reset\)/],
  ['panic', /stopped itself|panicked/], ['off', /stopped itself \(guest-shutdown\)/],
] as const;

for (const [kind, said] of ends) {
  test(`${kind}: one end, no restart`, async () => {
    const { outcome, machines } = await guest.attack(kind);
    const { verdict } = outcome;
    assert.ok(verdict.kind === 'failed' && verdict.code === 'E_GUEST_DIED', JSON.stringify(verdict));
    assert.match(verdict.message, said);
    assert.equal(verdict.blame, 'guest');
    assert.equal(outcome.state, 'sealed');
    assert.deepEqual([machines.length, outcome.attempts.length], [1, 1]);
    assert.ok(machines[0] !== undefined && !(await isAlive(machines[0].identity)));
  });
}

test('a processor that is deaf for ever ends at the deadline', async () => {
  const { outcome, machines } = await guest.attack('deaf', { wallMillis: 3_000 });
  const { verdict } = outcome;
  assert.ok(verdict.kind === 'failed' && verdict.code === 'E_FUNCTION_TIMEOUT', JSON.stringify(verdict));
  assert.equal(outcome.state, 'sealed');
  assert.ok(machines[0] !== undefined && !(await isAlive(machines[0].identity)));
});
