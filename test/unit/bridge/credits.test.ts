/**
 * Goal: neither side ever has more under way on a stream than its window, and no credit is invented.
 * Method: a guest that grants exactly what it is told; what the host sends is counted frame by frame.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ProtocolError } from '../../../src/bridge/frame.ts';
import { Inflow, Outflow } from '../../../src/bridge/streams.ts';
import { limits } from '../../../src/core/limits.ts';
import { adoptedRig, assertFailed, configuration, executingRig, exit, finishRun, provedRig, settle } from './rig.ts';
import type { ScriptedGuest } from './rig.ts';

const window = limits.streamWindowBytes;

function dataBytes(guest: ScriptedGuest): number {
  return guest.take().reduce((sum, { type, payload }) => sum + (type === 0x10 ? payload.length : 0), 0);
}

test('stdin stops at the window and goes on by exactly what is granted', async () => {
  const { guest, execution } = await executingRig({ stdin: Buffer.alloc(window + 100_000, 1) });
  assert.equal(dataBytes(guest), window);
  guest.credit('stdin', 1);
  await settle();
  assert.equal(dataBytes(guest), 1);
  guest.credit('stdin', 70_000);
  await settle();
  assert.equal(dataBytes(guest), 70_000);
  guest.credit('stdin', window - 70_000 + 70_000 - 1);
  await settle();
  assert.deepEqual(guest.heard().slice(-2), ['DATA 4 29999', 'END 4']);
  finishRun(guest);
  await execution;
});

test('code of many files flows through one window, every byte in order', async () => {
  const contents = Array.from({ length: 7 }, (_, i) => Buffer.alloc(100_000 + i, i));
  const rig = await adoptedRig();
  rig.guest.take();
  const done = rig.session.configure(configuration, contents.map((content, i) =>
    ({ kind: 'file', path: `f${i}`, mode: 0o644, content })));
  const parts: Buffer[] = [];
  for (let turn = 0; turn < 100; turn++) {
    const frames = rig.guest.take();
    const got = frames.filter(({ type }) => type === 0x10).map(({ payload }) => payload);
    parts.push(...got);
    const bytes = got.reduce((sum, { length }) => sum + length, 0);
    if (frames.some(({ type }) => type === 0x11)) break;
    rig.guest.credit('code', bytes);
    await settle();
  }
  assert.ok(Buffer.concat(parts).equals(Buffer.concat(contents)));
  rig.guest.say('PROOF', { fact: [] });
  await done;
});

test('the host grants what it has used, half a window at a time, and a long output needs no more', async () => {
  const { guest, execution } = await executingRig();
  guest.take();
  const chunk = Buffer.alloc(limits.framePayloadBytesMax, 120);
  let granted = window;
  for (let sent = 0; sent < 4 * 1024 * 1024; sent += chunk.length) {
    assert.ok(granted >= chunk.length, 'the guest would have to wait for ever');
    guest.data('output', chunk);
    granted -= chunk.length;
    await settle();
    for (const heard of guest.heard()) granted += Number(/^CREDIT 3 (\d+)$/.exec(heard)?.[1]);
    assert.ok(granted <= window);
  }
  finishRun(guest, { output: 4 * 1024 * 1024 });
  assert.equal((await execution).output.length, 4 * 1024 * 1024);
});

test('credit that was never earned is a violation: none, too much, or for the wrong stream', async () => {
  const nothing = await executingRig();
  nothing.guest.credit('stdin', 0);
  await assertFailed(nothing, { code: 'E_GUEST_PROTOCOL', violation: 'credit' });
  const unearned = await executingRig({ stdin: Buffer.alloc(10) });
  unearned.guest.credit('stdin', 11);
  await assertFailed(unearned, { code: 'E_GUEST_PROTOCOL', violation: 'credit' });
  const late = await executingRig();
  late.guest.credit('code', 1);
  await assertFailed(late, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
  const early = await provedRig();
  early.guest.credit('stdin', 1);
  await assertFailed(early, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('more than the window is a violation; exactly the window is not', async () => {
  const rig = await executingRig();
  const quarter = Buffer.alloc(window / 4);
  // One chunk: the host can grant only after it has read.
  const frames = [1, 2, 3, 4].map(() => rig.guest.make(0x10, 1, quarter));
  rig.transport.feed(Buffer.concat(frames));
  await settle();
  assert.equal(rig.session.status.state, 'executing');
  assert.equal(rig.session.received.stdout.bytes, window);
});

test('streams have limits of their own, and truncation is what the guest says', async () => {
  const over = await executingRig({ limits: { stdoutBytes: 10 } });
  over.guest.data('stdout', 'x'.repeat(10));
  over.guest.data('stdout', 'y');
  await assertFailed(over, { code: 'E_GUEST_PROTOCOL', violation: 'over-limit', reason: /stdout .* 10 bytes/ });
  assert.deepEqual(over.session.received.stdout, { bytes: 10, truncated: false });

  const truncated = await executingRig({ limits: { outputBytes: 4 } });
  truncated.guest.data('output', 'full');
  truncated.guest.end('output', 4, true);
  truncated.guest.end('stdout', 0);
  truncated.guest.end('stderr', 0);
  truncated.guest.say('EXIT', exit);
  const execution = await truncated.execution;
  assert.equal(execution.outputTruncated, true);
  assert.equal(execution.output.toString(), 'full');
});

test('Outflow: whatever is sent and granted, the window stays between 0 and its size', () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(window * 2))), (steps) => {
    const outflow = new Outflow('s');
    let sent = 0;
    let granted = 0;
    for (const [grant, bytes] of steps) {
      const before = outflow.window;
      try {
        if (grant) outflow.grant(bytes);
        else outflow.sent(bytes);
        if (grant) granted += bytes;
        else sent += bytes;
      } catch (thrown) {
        assert.ok(grant ? thrown instanceof ProtocolError : thrown instanceof RangeError);
        assert.equal(outflow.window, before);
      }
      assert.equal(outflow.window, window + granted - sent);
      assert.ok(outflow.window >= 0 && outflow.window <= window);
      assert.equal(outflow.sentBytes, sent);
    }
  }));
});

test('Inflow: an honest sender is never refused and never starves', () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 65_536 }), { maxLength: 200 }), (lengths) => {
    const inflow = new Inflow('s', Number.MAX_SAFE_INTEGER);
    let credit = window;
    for (const length of lengths) {
      assert.ok(length <= credit, 'starved');
      inflow.receive(length);
      credit += inflow.takeCredit() - length;
      assert.ok(credit <= window);
    }
  }));
});
