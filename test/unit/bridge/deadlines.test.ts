/**
 * Goal: nothing waits for ever, whatever the guest does or does not do, and no timer outlives its reason.
 * Method: a clock that moves when told, one millisecond before and at each bound.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFrame, frameTypes, streams } from '../../../src/bridge/frame.ts';
import { limits } from '../../../src/core/limits.ts';
import {
  adopted, adoptedRig, assertFailed, cloneNonce, configuration, executingRig, facts, finishRun, freshRig, identity,
  provedRig, settle,
} from './rig.ts';

test('no ADOPTED in time: silent', async () => {
  const rig = freshRig();
  const adopting = rig.session.adopt(identity);
  rig.clock.advance(limits.adoptMillisMax - 1);
  assert.equal(rig.session.status.state, 'adopting');
  rig.clock.advance(1);
  await assert.rejects(adopting, { code: 'E_GUEST_SILENT' });
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /ADOPTED within 5000 ms/ });
});

test('no PROOF in time: silent, counted from the call also when it is pipelined', async () => {
  const rig = freshRig();
  void rig.session.adopt(identity);
  const configuring = rig.session.configure(configuration, []);
  rig.clock.advance(4000);
  rig.guest.say('ADOPTED', adopted);
  await settle();
  rig.clock.advance(limits.configureMillisMax - 4000 - 1);
  assert.equal(rig.session.status.state, 'configuring');
  rig.clock.advance(1);
  await assert.rejects(configuring, { code: 'E_GUEST_SILENT' });
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /PROOF/ });
});

test('no EXIT within the wall time: a timeout that keeps the logs so far', async () => {
  let logs = '';
  const rig = await executingRig({ wallMillis: 1000, onStdout: (chunk) => { logs += String(chunk); } });
  rig.guest.data('stdout', 'working\n');
  rig.guest.data('stderr', '!');
  await settle();
  rig.clock.advance(999);
  assert.equal(rig.session.status.state, 'executing');
  rig.clock.advance(1);
  await assert.rejects(rig.execution, { code: 'E_FUNCTION_TIMEOUT', blame: 'caller' });
  await assertFailed(rig, { code: 'E_FUNCTION_TIMEOUT', reason: /1000 ms/ });
  assert.equal(logs, 'working\n');
  assert.deepEqual(rig.session.received, {
    stdout: { bytes: 8, truncated: false }, stderr: { bytes: 1, truncated: false },
  });
});

test('a frame that has begun must end in time; more bytes of it do not extend that', async () => {
  const rig = await executingRig({ wallMillis: 900_000 });
  const frame = rig.guest.make(frameTypes.DATA, streams.stdout, Buffer.alloc(1000));
  for (let second = 0; second < 5; second++) {
    rig.transport.feed(frame.subarray(second, second + 1));
    await settle();
    assert.equal(rig.session.status.state, 'executing', `second ${second}`);
    rig.clock.advance(1000);
  }
  await assertFailed(rig, { code: 'E_GUEST_SILENT', reason: /began a frame .* 5000 ms/ });
});

test('each incomplete frame has its own time', async () => {
  const rig = await executingRig({ wallMillis: 900_000 });
  const frames = Array.from({ length: 10 }, (_, sequence) => encodeFrame({
    type: frameTypes.DATA, sequence: sequence + 2, stream: 1, nonce: cloneNonce, payload: Buffer.from('0123456789'),
  }));
  const bytes = Buffer.concat(frames);
  // Every chunk ends inside a frame, each time a later one: slow, but moving.
  for (let at = 0; at < bytes.length; at += 34) {
    rig.transport.feed(bytes.subarray(at === 0 ? 0 : at - 3, at + 31));
    await settle();
    rig.clock.advance(4000);
  }
  assert.equal(rig.session.status.state, 'executing');
  rig.transport.feed(bytes.subarray(bytes.length - 3));
  await settle();
  assert.equal(rig.session.received.stdout.bytes, 100);
  assert.equal(rig.clock.pending, 1, 'only the wall time is left');
});

test('timers end with what they were for', async () => {
  const rig = await adoptedRig();
  assert.equal(rig.clock.pending, 0, 'adopted');
  const configuring = rig.session.configure(configuration, []);
  assert.equal(rig.clock.pending, 1, 'configuring');
  rig.guest.say('PROOF', { fact: facts });
  await configuring;
  assert.equal(rig.clock.pending, 0, 'proved');
  const executing = rig.session.execute({ stdin: Buffer.alloc(1), wallMillis: 1000 });
  assert.equal(rig.clock.pending, 1, 'executing');
  finishRun(rig.guest);
  await executing;
  assert.equal(rig.clock.pending, 0, 'finished');
  const closed = await provedRig();
  void closed.session.execute({ stdin: Buffer.alloc(1), wallMillis: 1000 });
  closed.session.close();
  assert.equal(closed.clock.pending, 0, 'closed');
});
