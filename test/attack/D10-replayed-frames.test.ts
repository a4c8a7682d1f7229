/**
 * D10: frames of another run, or of this one, sent again. Another run has another nonce, this one has counted on.
 * Method: a run is recorded frame by frame and replayed into others.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFrame } from '../../src/bridge/frame.ts';
import { Session } from '../../src/bridge/session.ts';
import { cases } from '../golden/cases.ts';
import {
  adopted, assertFailed, configuration, executingRig, facts, identity, ManualClock, ScriptedGuest, settle, Transport,
} from '../unit/bridge/rig.ts';
import type { Rig } from '../unit/bridge/rig.ts';

/** A complete recorded run of another clone, byte for byte what its guest sent. */
const recorded = cases.find(({ name }) => name === 'exchange-clone-guest')?.bytes ?? Buffer.alloc(0);
const otherNonce = 0xfeed_beef_0000_0001n;

test('a whole run of another clone', async () => {
  const clock = new ManualClock();
  const transport = new Transport();
  const session = new Session({ transport, clock });
  const rig: Rig = { clock, transport, session, guest: new ScriptedGuest(transport, otherNonce) };
  const adopting = session.adopt({ ...identity, nonce: otherNonce });
  void session.configure(configuration, []);
  transport.feed(recorded);
  await assert.rejects(adopting, { code: 'E_GUEST_PROTOCOL' });
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'nonce' });
});

test('the end of another clone\'s run, after an honest beginning', async () => {
  const clock = new ManualClock();
  const transport = new Transport();
  const session = new Session({ transport, clock });
  const guest = new ScriptedGuest(transport, otherNonce);
  const rig: Rig = { clock, transport, session, guest };
  const ready = Promise.all([session.adopt({ ...identity, nonce: otherNonce }), session.configure(configuration, [])]);
  guest.say('ADOPTED', adopted);
  guest.say('PROOF', { fact: facts });
  await ready;
  const executing = session.execute({ stdin: Buffer.from('{}'), wallMillis: 1000 });
  // Its sequence numbers fit: the recorded run had sent ADOPTED and PROOF as well.
  transport.feed(recorded.subarray(recorded.indexOf(encodeFrame({
    type: 0x10, sequence: 2, stream: 1, nonce: identity.nonce, payload: Buffer.from('hello\n'),
  }))));
  await assert.rejects(executing, { code: 'E_GUEST_PROTOCOL' });
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'nonce' });
});

test('a frame of this run again', async () => {
  const rig = await executingRig();
  const frame = rig.guest.make(0x10, 1, Buffer.from('pay 10\n'));
  rig.transport.feed(frame);
  rig.transport.feed(frame);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'sequence' });
  assert.equal(rig.session.received.stdout.bytes, 7);
});

test('two frames of this run exchanged', async () => {
  const rig = await executingRig();
  const frames = ['first', 'second'].map((text) => rig.guest.make(0x10, 1, Buffer.from(text)));
  rig.transport.feed(Buffer.concat(frames.toReversed()));
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'sequence' });
});

test('a frame that was dropped on the way', async () => {
  const rig = await executingRig();
  rig.guest.make(0x10, 1, Buffer.from('lost'));
  rig.guest.data('stdout', 'next');
  await settle();
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'sequence' });
});
