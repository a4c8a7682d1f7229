/**
 * D8: a close in the middle of a frame, an early end of file, two outputs, output after its end, an exit before the
 * ends. The first complete exchange wins; everything less is a failure.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import { assertFailed, executingRig, exit, finishRun, settle } from '../unit/bridge/rig.ts';
import type { ScriptedGuest } from '../unit/bridge/rig.ts';

test('close in the middle of a frame', async () => {
  const rig = await executingRig();
  rig.transport.feed(rig.guest.make(frameTypes.DATA, streams.output, Buffer.alloc(100)).subarray(0, 60));
  rig.transport.finish();
  await assert.rejects(rig.execution, { code: 'E_GUEST_DIED' });
  await assertFailed(rig, { code: 'E_GUEST_DIED', reason: /middle of a frame/ });
});

test('end of file after a whole result but without EXIT', async () => {
  const rig = await executingRig();
  rig.guest.data('output', '{}');
  rig.guest.end('output', 2);
  rig.transport.finish();
  await assert.rejects(rig.execution, { code: 'E_GUEST_DIED' });
  await assertFailed(rig, { code: 'E_GUEST_DIED', reason: /before the exchange was over/ });
});

test('a reset connection', async () => {
  const rig = await executingRig();
  rig.transport.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }));
  await assert.rejects(rig.execution, { code: 'E_GUEST_DIED' });
  await assertFailed(rig, { code: 'E_GUEST_DIED', reason: /ECONNRESET/ });
});

test('EXIT and the end of the VM in one moment: the exchange was complete', async () => {
  const rig = await executingRig();
  finishRun(rig.guest);
  rig.transport.finish();
  assert.equal((await rig.execution).exit.exitCode, 0);
  await settle();
  assert.equal(rig.session.status.state, 'finished');
});

const violations: Readonly<Record<string, readonly [string, (guest: ScriptedGuest) => void]>> = {
  'a second output after the first has ended': ['after-end', (guest) => {
    guest.data('output', '{"a":1}');
    guest.end('output', 7);
    guest.data('output', '{"a":2}');
  }],
  'a second END': ['after-end', (guest) => { guest.end('stdout', 0); guest.end('stdout', 0); }],
  'a log line after its end': ['after-end', (guest) => { guest.end('stderr', 0); guest.data('stderr', 'x'); }],
  'an END that claims more than came': ['end-total', (guest) => { guest.data('output', 'a'); guest.end('output', 2); }],
  'an END that claims less than came': ['end-total', (guest) => { guest.data('output', 'a'); guest.end('output', 0); }],
  'EXIT before any END': ['order', (guest) => guest.say('EXIT', exit)],
  'EXIT before the END of the output': ['order', (guest) => {
    guest.end('stdout', 0);
    guest.end('stderr', 0);
    guest.data('output', '{}');
    guest.say('EXIT', exit);
  }],
};

for (const [name, [violation, attack]] of Object.entries(violations)) {
  test(name, async () => {
    const rig = await executingRig();
    attack(rig.guest);
    await assert.rejects(rig.execution, { code: 'E_GUEST_PROTOCOL' });
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation });
  });
}

test('a second EXIT is not read: the first one counts', async () => {
  const rig = await executingRig();
  finishRun(rig.guest);
  rig.guest.say('EXIT', { ...exit, exitCode: 77 });
  assert.equal((await rig.execution).exit.exitCode, 0);
});
