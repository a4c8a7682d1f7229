/**
 * D5: unknown version or type, a second answer, an answer in the wrong state: one violation each, as a value.
 * Method: each attack against a session that would otherwise succeed. The full matrix of states and frames is in
 * test/unit/bridge/order.test.ts.
 */
import { test } from 'node:test';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import {
  adopted, adoptedRig, assertFailed, executingRig, exit, facts, freshRig, provedRig,
} from '../unit/bridge/rig.ts';
import type { Rig } from '../unit/bridge/rig.ts';

function feedPatched({ guest, transport }: Rig, patch: (bytes: Buffer) => void): void {
  const frame = guest.make(frameTypes.DATA, streams.stdout, Buffer.from('x'));
  patch(frame);
  transport.feed(frame);
}

for (const version of [0, 2, 255]) {
  test(`version ${version}`, async () => {
    const rig = await executingRig();
    feedPatched(rig, (bytes) => bytes.writeUInt8(version, 2));
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'version' });
  });
}

const known = new Set<number>(Object.values(frameTypes));

test('every type that the guest may not send', async () => {
  for (let type = 0; type <= 255; type++) {
    if (known.has(type) && type < frameTypes.PREPARE) continue;
    const rig = await executingRig();
    feedPatched(rig, (bytes) => bytes.writeUInt8(type, 3));
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'type' });
  }
});

test('ADOPTED twice', async () => {
  const rig = await adoptedRig();
  rig.guest.say('ADOPTED', adopted);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('PROOF twice: a better one after the first', async () => {
  const rig = await provedRig();
  rig.guest.say('PROOF', { fact: facts });
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('a result before the event was delivered', async () => {
  const rig = await provedRig();
  rig.guest.data('output', '{"ok":true,"value":"prepared"}');
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('an exit before the event was delivered', async () => {
  const rig = await provedRig();
  rig.guest.say('EXIT', exit);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('bytes before the clone was adopted', async () => {
  const rig = freshRig();
  rig.guest.say('ADOPTED', adopted);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'nonce' });
});
