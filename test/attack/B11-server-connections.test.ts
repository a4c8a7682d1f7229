/**
 * D5 and D8 on connections that the host opens: accepted twice, accepted by nobody's number, bytes before ACCEPT, more
 * bytes than the window, ends that lie. Each ends as the guest's violation, and whoever used the connection is told.
 * Method: a scripted guest.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Door } from '../../src/bridge/door.ts';
import { frameTypes, hostStreams } from '../../src/bridge/frame.ts';
import { encodeCredit, encodeEnd, encodeReset } from '../../src/bridge/streams.ts';
import { limits } from '../../src/core/limits.ts';
import { assertFailed, executingRig, settle } from '../unit/bridge/rig.ts';
import type { ExecutingRig } from '../unit/bridge/rig.ts';

const stream = hostStreams.min;
const none = Buffer.alloc(0);

async function dialled(): Promise<{ rig: ExecutingRig; door: Door }> {
  const rig = await executingRig();
  const door = rig.session.dial(8080);
  await settle();
  const opened = rig.guest.take().filter(({ type }) => type === frameTypes.OPEN);
  assert.deepEqual(opened.map((frame) => frame.stream), [stream]);
  return { rig, door };
}

for (const [name, violation, attack] of [
  ['ACCEPT twice', 'order', (rig) => {
    for (let i = 0; i < 2; i++) rig.guest.send(frameTypes.ACCEPT, stream, none);
  }],
  ['ACCEPT of a connection that nobody opened', 'order', (rig) => rig.guest.send(frameTypes.ACCEPT, stream + 1, none)],
  ['ACCEPT of its own connection', 'stream', (rig) => rig.guest.send(frameTypes.ACCEPT, 16, none)],
  ['OPEN in the host\'s half', 'stream', (rig) => rig.guest.send(frameTypes.OPEN, stream + 1, Buffer.alloc(20))],
  ['DATA before ACCEPT', 'order', (rig) => rig.guest.send(frameTypes.DATA, stream, Buffer.alloc(1))],
  ['DATA beyond the window', 'no-credit', (rig) => {
    rig.guest.send(frameTypes.ACCEPT, stream, none);
    for (let i = 0; i < 3; i++) rig.guest.send(frameTypes.DATA, stream, Buffer.alloc(limits.egressWindowBytes / 2));
  }],
  ['CREDIT for nothing sent', 'credit', (rig) => {
    rig.guest.send(frameTypes.ACCEPT, stream, none);
    rig.guest.send(frameTypes.CREDIT, stream, encodeCredit(1));
  }],
  ['an END that lies', 'end-total', (rig) => {
    rig.guest.send(frameTypes.ACCEPT, stream, none);
    rig.guest.send(frameTypes.END, stream, encodeEnd({ totalBytes: 1, truncated: false }));
  }],
] as readonly [string, string, (rig: ExecutingRig) => void][]) {
  test(name, async () => {
    const { rig, door } = await dialled();
    attack(rig);
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation });
    assert.ok(door.destroyed);
    await door.isOpen;
  });
}

test('a host that reads nothing gives no credit; what it has read, it grants again', async () => {
  const { rig, door } = await dialled();
  rig.guest.send(frameTypes.ACCEPT, stream, none);
  for (let i = 0; i < 2; i++) rig.guest.send(frameTypes.DATA, stream, Buffer.alloc(limits.egressWindowBytes / 2));
  await settle();
  assert.equal(await door.isOpen, true);
  assert.deepEqual(rig.guest.heard(), []);
  door.resume();
  await settle();
  const credits = rig.guest.take().map(({ payload }) => payload.readUInt32LE());
  assert.equal(credits.reduce((sum, bytes) => sum + bytes, 0), limits.egressWindowBytes);
  rig.session.close();
});

test('a reset, also before there was a connection, closes the door and nothing else', async () => {
  const { rig, door } = await dialled();
  rig.guest.send(frameTypes.RESET, stream, encodeReset('gone'));
  await settle();
  assert.deepEqual([await door.isOpen, door.destroyed, rig.session.status.state], [false, true, 'executing']);
  rig.session.close();
});
