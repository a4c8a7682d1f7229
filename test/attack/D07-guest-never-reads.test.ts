/**
 * D7: a guest that never reads. What waits for it is bounded, and so is how long.
 * Method: a real socket pair whose other end is never read, 64 MiB of code to send; then the event.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { CodeEntry } from '../../src/bridge/session.ts';
import { Session } from '../../src/bridge/session.ts';
import { limits } from '../../src/core/limits.ts';
import {
  adoptedRig, assertFailed, configuration, executingRig, identity, ManualClock, settle,
} from '../unit/bridge/rig.ts';

const MiB = 1024 * 1024;

/** Files without bytes: no window stops them, only the transport. */
const folders: readonly CodeEntry[] = Array.from({ length: limits.codeEntriesMax }, (_, i) =>
  ({ kind: 'folder', path: `${'d'.repeat(900)}${i}`, mode: 0o755 }));

test('a real socket that nobody reads', async () => {
  const mute = spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
  const transport = mute.stdio[3] as Socket;
  const clock = new ManualClock();
  const session = new Session({ transport, clock, bounds: { adoptMillisMax: 900_000, configureMillisMax: 900_000 } });
  try {
    const before = process.memoryUsage().arrayBuffers;
    const adopting = session.adopt(identity);
    const configuring = session.configure(configuration, folders);
    for (let turn = 0; turn < 20; turn++) await settle();
    assert.ok(transport.writableLength < limits.writeQueueBytesMax);
    assert.ok(process.memoryUsage().arrayBuffers - before < 4 * MiB);
    clock.advance(limits.writeStallMillisMax);
    await assert.rejects(adopting, { code: 'E_GUEST_SILENT' });
    await assert.rejects(configuring, { code: 'E_GUEST_SILENT' });
    assert.equal(clock.pending, 0);
  } finally {
    session.close();
    mute.kill('SIGKILL');
    await once(mute, 'exit');
  }
});

test('64 MiB of code: one window is under way', async () => {
  const rig = await adoptedRig();
  const content = Buffer.alloc(limits.codeBytesMax);
  const configuring = rig.session.configure(configuration, [{ kind: 'file', path: 'big', mode: 0o644, content }]);
  for (let turn = 0; turn < 20; turn++) await settle();
  const sent = rig.guest.take().reduce((sum, { type, payload }) => sum + (type === 0x10 ? payload.length : 0), 0);
  assert.equal(sent, limits.streamWindowBytes);
  rig.clock.advance(limits.configureMillisMax);
  await assert.rejects(configuring, { code: 'E_GUEST_SILENT' });
});

test('an event that is never taken ends with the stall, before a long wall time', async () => {
  const rig = await executingRig({
    stdin: Buffer.alloc(limits.eventBytesMax), wallMillis: limits.wallMillisMax, highWaterMark: 16_384,
  });
  rig.guest.take();
  rig.transport.reads = false;
  rig.guest.credit('stdin', limits.streamWindowBytes);
  await settle();
  assert.ok(rig.transport.writableLength < 16_384 + 65_536 + limits.frameHeaderBytes);
  rig.clock.advance(limits.writeStallMillisMax);
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /has not read/ });
});

test('a function that never reads its event is not a violation: the window waits, the wall time decides', async () => {
  const rig = await executingRig({ stdin: Buffer.alloc(limits.eventBytesMax), wallMillis: 30_000 });
  rig.clock.advance(29_999);
  assert.equal(rig.session.status.state, 'executing');
  rig.clock.advance(1);
  await assert.rejects(rig.execution, { code: 'E_FUNCTION_TIMEOUT' });
});
