/**
 * D1: lengths 0, max, max + 1, 2^32 - 1 and negative. Refused before anything is allocated for them.
 * Method: headers only, against a session; the process's buffers are measured.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import { limits } from '../../src/core/limits.ts';
import { assertFailed, executingRig, settle } from '../unit/bridge/rig.ts';

const header = (length: number): ((bytes: Buffer) => void) => (bytes) => bytes.writeUInt32LE(length, 4);

for (const length of [0, limits.framePayloadBytesMax + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
  test(`DATA with a length of ${length}`, async () => {
    const rig = await executingRig();
    const frame = rig.guest.make(frameTypes.DATA, streams.stdout, Buffer.alloc(1));
    header(length)(frame);
    const before = process.memoryUsage().arrayBuffers;
    rig.transport.feed(frame);
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'length' });
    assert.ok(process.memoryUsage().arrayBuffers - before < 256 * 1024);
  });
}

test('the largest frame is a frame, the smallest too', async () => {
  const rig = await executingRig();
  rig.guest.data('stdout', Buffer.alloc(limits.framePayloadBytesMax));
  rig.guest.data('stdout', 'x');
  await settle();
  assert.equal(rig.session.received.stdout.bytes, limits.framePayloadBytesMax + 1);
});

test('a thousand guests that announce a largest frame and send nothing hold one frame each, for a time', async () => {
  const rigs = await Promise.all(Array.from({ length: 1000 }, () => executingRig()));
  const before = process.memoryUsage().arrayBuffers;
  for (const { guest, transport } of rigs) {
    const frame = guest.make(frameTypes.DATA, streams.stdout, Buffer.alloc(1024));
    transport.feed(frame.subarray(0, limits.frameHeaderBytes));
  }
  await settle();
  assert.ok(process.memoryUsage().arrayBuffers - before < 1000 * limits.framePayloadBytesMax);
  for (const rig of rigs) rig.clock.advance(limits.frameMillisMax);
  for (const rig of rigs) await assertFailed(rig, { code: 'E_GUEST_SILENT' });
});
