/**
 * D2: every truncation of every golden frame, then silence or an end. No hang, no throw.
 * Method: each cut is fed to a session that waits for ADOPTED (the goldens' nonce, sequence 0); half of them then see
 * the transport close, the other half see time pass.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MayflyError } from '../../src/core/errors.ts';
import { limits } from '../../src/core/limits.ts';
import { cases } from '../golden/cases.ts';
import { freshRig, identity, settle } from '../unit/bridge/rig.ts';

const adoptedFrame = cases.find(({ name }) => name === 'adopted')?.bytes ?? Buffer.alloc(0);
const guestCases = cases.filter(({ from, nonce }) => from === 'guest' && nonce !== 0n);

function cutsOf(length: number): number[] {
  const all = Array.from({ length: length + 1 }, (_, at) => at);
  return all.filter((at) => at < 64 || at > length - 16 || at % 509 === 0);
}

for (const { name, bytes } of guestCases) {
  test(`truncations of ${name} end in a status`, async () => {
    await Promise.all(cutsOf(bytes.length).map(async (at) => {
      const rig = freshRig();
      const adopting = rig.session.adopt(identity);
      rig.transport.feed(bytes.subarray(0, at));
      await settle();
      if (at % 2 === 0) rig.transport.finish();
      else rig.clock.advance(limits.adoptMillisMax);
      await settle();
      const { status } = rig.session;
      assert.ok(status.state === 'failed' || status.state === 'adopted', `${status.state} after ${at} bytes`);
      if (status.state === 'failed') assert.match(status.code, /^(E_GUEST_(PROTOCOL|SILENT|DIED)|E_CLONE_NOT_UNIQUE)$/);
      const outcome = await adopting.then(() => 'adopted', (error: MayflyError) => error.code);
      const complete = bytes.subarray(0, at).indexOf(adoptedFrame) === 0;
      if (complete) assert.equal(outcome, 'adopted');
      else assert.equal(outcome, status.state === 'failed' ? status.code : 'not failed', `after ${at} bytes`);
      rig.session.close();
      assert.equal(rig.clock.pending, 0);
    }));
  });
}
