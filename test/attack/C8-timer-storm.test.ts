/**
 * C8: a guest kernel that programs every timer it has to its shortest period, without end. Expected: its VMM pays, not
 * the host: the time is in the process's own account, a neighbour's run ends as always, and the deadline ends it.
 * Method: guest/hostile.c in a real VM. Under KVM the host kernel's timer thread would have to be in a host cgroup,
 * which Mayfly does not make yet; that half stays open.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAlive } from '../vm/rig.ts';
import { openHostileGuest } from './hostile.ts';

test('a storm of timers ends at its deadline, and a neighbour ends as always', async () => {
  const guest = await openHostileGuest();
  try {
    const [{ outcome, machines, console }, neighbour] = await Promise.all([
      guest.attack('timers', { wallMillis: 4_000 }), guest.neighbour(),
    ]);
    const { verdict } = outcome;
    assert.match(console, /a storm of timers/);
    assert.ok(verdict.kind === 'failed' && verdict.code === 'E_FUNCTION_TIMEOUT', JSON.stringify(verdict));
    assert.equal(outcome.state, 'sealed');
    assert.ok(machines[0] !== undefined && !(await isAlive(machines[0].identity)));
    assert.equal(neighbour.verdict.kind, 'accepted', JSON.stringify(neighbour.verdict));
  } finally {
    await guest.close();
  }
});
