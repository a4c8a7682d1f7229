/**
 * D3: one byte per second. The frame's deadline ends it, in every state, although bytes keep coming.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import { limits } from '../../src/core/limits.ts';
import { assertFailed, executingRig, freshRig, identity, settle } from '../unit/bridge/rig.ts';
import type { Rig } from '../unit/bridge/rig.ts';

async function drip(rig: Rig, bytes: Buffer): Promise<number> {
  for (let second = 0; second < bytes.length; second++) {
    if (rig.session.status.state === 'failed') return second;
    rig.transport.feed(bytes.subarray(second, second + 1));
    await settle();
    rig.clock.advance(1000);
  }
  return bytes.length;
}

test('while executing', async () => {
  const rig = await executingRig({ wallMillis: limits.wallMillisMax });
  const seconds = await drip(rig, rig.guest.make(frameTypes.DATA, streams.output, Buffer.alloc(50)));
  assert.equal(seconds, limits.frameMillisMax / 1000);
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /began a frame/ });
});

test('while adopting', async () => {
  const rig = freshRig({ bounds: { adoptMillisMax: 60_000 } });
  const adopting = rig.session.adopt(identity);
  const seconds = await drip(rig, rig.guest.make(frameTypes.ADOPTED, 0, Buffer.alloc(50)));
  assert.equal(seconds, limits.frameMillisMax / 1000);
  await assert.rejects(adopting, { code: 'E_GUEST_SILENT' });
});

test('whole frames of one byte, one a second, are only slow: the wall time ends them', async () => {
  const rig = await executingRig({ wallMillis: 30_000 });
  for (let second = 0; second < 30; second++) {
    rig.guest.data('stdout', 'x');
    await settle();
    rig.clock.advance(1000);
  }
  await assert.rejects(rig.execution, { code: 'E_FUNCTION_TIMEOUT' });
  assert.equal(rig.session.received.stdout.bytes, 30);
});
