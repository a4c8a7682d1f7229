/**
 * D9: a workload that gets hold of bytes to the host and plays the agent. It does not know the clone's nonce.
 * Method: good frames under every nonce that such a workload could know or guess. That only the agent can open the
 * port has to be shown in a real VM.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeFrame } from '../../src/bridge/frame.ts';
import { encodeMessage, messages } from '../../src/bridge/message.ts';
import { assertFailed, cloneNonce, executingRig, exit } from '../unit/bridge/rig.ts';
import type { Rig } from '../unit/bridge/rig.ts';

function forgeExit({ transport }: Rig, nonce: bigint): void {
  const payload = encodeMessage('EXIT', exit);
  // ADOPTED and PROOF were 0 and 1: counting is easy, the nonce is what cannot be counted.
  transport.feed(encodeFrame({ type: messages.EXIT.type, sequence: 2, stream: 0, nonce, payload }));
}

for (const [name, nonce] of Object.entries({
  'the template\'s': 0n,
  'one more': cloneNonce + 1n,
  'the halves exchanged': 0x89ab_cdef_0123_4567n,
  'the low half only': 0x89ab_cdefn,
  'all ones': 2n ** 64n - 1n,
})) {
  test(`a forged EXIT with a nonce that is ${name}`, async () => {
    const rig = await executingRig();
    forgeExit(rig, nonce);
    await assert.rejects(rig.execution, { code: 'E_GUEST_PROTOCOL' });
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'nonce' });
  });
}

test('any other nonce', async () => {
  await fc.assert(fc.asyncProperty(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), async (nonce) => {
    fc.pre(nonce !== cloneNonce);
    const rig = await executingRig();
    forgeExit(rig, nonce);
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'nonce' });
  }), { numRuns: 50 });
});

test('the nonce is never in what a failure says', async () => {
  const rig = await executingRig();
  forgeExit(rig, cloneNonce + 1n);
  const { reason } = await assertFailed(rig, { code: 'E_GUEST_PROTOCOL' });
  assert.doesNotMatch(reason, new RegExp(`${cloneNonce}|${cloneNonce.toString(16)}`));
});
