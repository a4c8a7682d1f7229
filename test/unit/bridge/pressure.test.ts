/**
 * Goal: a guest that does not read costs the host a bounded queue and a bounded time.
 * Method: a transport that stops taking bytes; its queue is measured while the host has a lot to send.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CodeEntry } from '../../../src/bridge/session.ts';
import { limits } from '../../../src/core/limits.ts';
import {
  adoptedRig, assertFailed, configuration, executingRig, facts, finishRun, freshRig, identity, settle,
} from './rig.ts';

const manyFiles: readonly CodeEntry[] = Array.from({ length: limits.codeEntriesMax }, (_, i) =>
  ({ kind: 'folder', path: `${'x'.repeat(1000)}${i}`, mode: 0o755 }));

test('20,000 entries (20 MB of messages) wait in their list, not in the queue', async () => {
  const rig = await adoptedRig();
  rig.transport.reads = false;
  const configuring = rig.session.configure(configuration, manyFiles);
  await settle();
  assert.ok(rig.transport.writableLength < 2 * 64 * 1024, `${rig.transport.writableLength} bytes are queued`);
  rig.transport.reads = true;
  for (let turn = 0; turn < 2000 && rig.transport.writableLength > 0; turn++) await settle();
  const heard = rig.guest.heard();
  assert.equal(heard.filter((name) => name === 'FILE').length, limits.codeEntriesMax);
  assert.equal(heard.at(-1), 'END 5');
  rig.guest.say('PROOF', { fact: facts });
  await configuring;
});

test('a guest that does not read for too long is silent', async () => {
  const rig = await adoptedRig();
  rig.transport.reads = false;
  const configuring = rig.session.configure(configuration, manyFiles);
  rig.clock.advance(limits.writeStallMillisMax - 1);
  assert.equal(rig.session.status.state, 'configuring');
  rig.clock.advance(1);
  await assert.rejects(configuring, { code: 'E_GUEST_SILENT' });
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /has not read/ });
});

test('reading again in time ends the stall, and the next one has its own time', async () => {
  const rig = await executingRig({ stdin: Buffer.alloc(600_000), wallMillis: 900_000, highWaterMark: 16_384 });
  rig.guest.take();
  rig.transport.reads = false;
  rig.guest.credit('stdin', 200_000);
  await settle();
  rig.clock.advance(limits.writeStallMillisMax - 1);
  rig.transport.reads = true;
  await settle();
  rig.transport.reads = false;
  rig.guest.credit('stdin', 100_000);
  await settle();
  rig.clock.advance(limits.writeStallMillisMax - 1);
  assert.equal(rig.session.status.state, 'executing');
  rig.transport.reads = true;
  finishRun(rig.guest);
  await rig.execution;
});

test('what is sent regardless of congestion still has a bound', async () => {
  const rig = freshRig({ bounds: { writeQueueBytesMax: 300 } });
  rig.transport.reads = false;
  const adopting = rig.session.adopt(identity);
  const configuring = rig.session.configure(configuration, []);
  await assert.rejects(adopting, { code: 'E_GUEST_SILENT' });
  await assert.rejects(configuring, { code: 'E_GUEST_SILENT' });
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /does not read: \d+ bytes wait/ });
});

test('a guest that does not read gets no credit until it reads again', async () => {
  const quarter = Buffer.alloc(limits.streamWindowBytes / 4);
  const rig = await executingRig({ highWaterMark: 20 });
  rig.transport.reads = false;
  for (let sent = 0; sent < 4; sent++) rig.guest.data('output', quarter);
  await settle();
  // The first credit was written and filled the queue; the second half of the window is used up and not granted again.
  assert.equal(rig.transport.writableLength, 28);
  rig.transport.reads = true;
  await settle();
  const credits = rig.guest.heard().filter((name) => name.startsWith('CREDIT'));
  assert.deepEqual(credits, ['CREDIT 3 131072', 'CREDIT 3 131072']);
  finishRun(rig.guest, { output: limits.streamWindowBytes });
  await rig.execution;
});
