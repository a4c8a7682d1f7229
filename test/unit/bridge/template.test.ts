/**
 * Goal: a template is ready only after HELLO, PREPARE and READY; every other way to be prepared is E_TEMPLATE_BUILD.
 * Method: a scripted guest and a clock that moves when told.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeMessage } from '../../../src/bridge/message.ts';
import { prepareTemplate } from '../../../src/bridge/session.ts';
import type { Prepared } from '../../../src/bridge/template.ts';
import { limits } from '../../../src/core/limits.ts';
import { ManualClock, ScriptedGuest, settle, Transport } from './rig.ts';

const prepare = { argv: ['/usr/bin/node'], env: ['A=1'], uid: 1000, gid: 1000, scratchBytes: 67_108_864 };
const hello = {
  protocol: 1, agentVersion: '0.1.0', kernelRelease: '6.1.0', memoryBytes: 268_435_456, policyFeatures: 'caps {}\n',
};

const policy = async (features: string): Promise<Buffer> => Buffer.from(`compiled for ${features}`);

interface TemplateRig {
  readonly transport: Transport;
  readonly clock: ManualClock;
  readonly guest: ScriptedGuest;
  readonly prepared: Promise<Prepared>;
}

function templateRig(): TemplateRig {
  const transport = new Transport();
  const clock = new ManualClock();
  const prepared = prepareTemplate({ transport, clock, prepare, policy });
  return { transport, clock, guest: new ScriptedGuest(transport, 0n), prepared };
}

async function assertRefused({ prepared, clock, transport }: TemplateRig, message: RegExp): Promise<void> {
  await assert.rejects(prepared, { code: 'E_TEMPLATE_BUILD', message });
  assert.equal(clock.pending, 0);
  assert.ok(transport.isPaused() || transport.destroyed);
}

test('hello, prepare, ready: the transport is left open and paused', async () => {
  const rig = templateRig();
  rig.guest.say('HELLO', hello);
  await settle();
  const [frame, ...rest] = rig.guest.take();
  assert.ok(frame !== undefined && rest.length === 0);
  assert.deepEqual(decodeMessage(frame.type, frame.payload), {
    name: 'PREPARE', fields: { ...prepare, policy: Buffer.from('compiled for caps {}\n') },
  });
  rig.guest.say('READY', { warm: 1 });
  assert.deepEqual(await rig.prepared, { hello, warm: true });
  assert.equal(rig.clock.pending, 0);
  assert.ok(rig.transport.isPaused() && !rig.transport.destroyed);
  // Nobody listens any more, and an error of the socket must not end the process.
  rig.transport.destroy(new Error('ECONNRESET'));
  await settle();
});

test('no HELLO, or no READY, in time', async () => {
  const mute = templateRig();
  mute.clock.advance(limits.bootMillisMax);
  await assertRefused(mute, /no HELLO within 90000 ms/);
  const cold = templateRig();
  cold.clock.advance(limits.bootMillisMax - 1);
  cold.guest.say('HELLO', hello);
  await settle();
  cold.clock.advance(limits.warmMillisMax);
  await assertRefused(cold, /no READY within 90000 ms/);
});

const refusals: Readonly<Record<string, readonly [RegExp, (guest: ScriptedGuest) => void]>> = {
  'another version of the bridge': [/version 2 of the bridge, not 1/, (guest) =>
    guest.say('HELLO', { ...hello, protocol: 2 })],
  'READY before HELLO': [/waits for HELLO/, (guest) => guest.say('READY', { warm: 0 })],
  'HELLO twice': [/waits for READY/, (guest) => { guest.say('HELLO', hello); guest.say('HELLO', hello); }],
  'output of a workload': [/waits for HELLO/, (guest) => guest.data('stdout', 'x')],
  'a clone\'s nonce': [/nonce/, (guest) => { guest.nonce = 5n; guest.say('HELLO', hello); }],
  garbage: [/magic/, (guest) => guest.transport.feed(Buffer.alloc(100, 0x20))],
  'a fault': [/E_TEMPLATE_BUILD: mount: Invalid argument/, (guest) =>
    guest.say('FAULT', { code: 'E_TEMPLATE_BUILD', message: 'mount: Invalid argument' })],
  'an end': [/closed before the exchange was over/, (guest) => guest.transport.finish()],
};

for (const [name, [message, send]] of Object.entries(refusals)) {
  test(`${name} ends the preparation`, async () => {
    const rig = templateRig();
    send(rig.guest);
    await assertRefused(rig, message);
  });
}
