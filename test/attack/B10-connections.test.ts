/**
 * B10 and D1 to D8 on connections: floods of OPEN and QUERY, bytes without credit, credit that was never earned, frames
 * on streams that nobody opened, numbers used twice, and frames before their time. Each ends as the guest's violation;
 * what the host holds meanwhile is bounded. Method: a scripted guest, and a broker that accepts everything.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frameTypes } from '../../src/bridge/frame.ts';
import { encodeCredit, encodeEnd, encodeOpen, encodeReset } from '../../src/bridge/streams.ts';
import { limits } from '../../src/core/limits.ts';
import type { Broker, GuestEnd } from '../../src/egress/contract.ts';
import { assertFailed, executingRig, provedRig, settle } from '../unit/bridge/rig.ts';
import type { ExecutingRig } from '../unit/bridge/rig.ts';

interface Accepting extends Broker {
  readonly guests: GuestEnd[];
  ended: number;
  reset: number;
}

function accepting(answer?: Buffer): Accepting {
  const broker: Accepting = {
    guests: [], ended: 0, reset: 0,
    open(_target, guest) {
      broker.guests.push(guest);
      guest.accept();
      return { data() {}, end() { broker.ended++; }, reset() { broker.reset++; }, writable() {} };
    },
    query: () => answer,
  };
  return broker;
}

const target = encodeOpen({ address: '192.0.2.1', port: 80 });

function open({ guest }: ExecutingRig, ...streams: number[]): void {
  for (const stream of streams) guest.send(frameTypes.OPEN, stream, target);
}

test('more connections at a time than a clone has places for', async () => {
  const broker = accepting();
  const rig = await executingRig({ broker });
  open(rig, ...Array.from({ length: limits.egressConnectionsMax }, (_, i) => 16 + i));
  await settle();
  assert.equal(rig.session.status.state, 'executing');
  open(rig, 1000);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'over-limit' });
  assert.equal(broker.reset, limits.egressConnectionsMax, 'a connection outlives its clone');
});

test('a flood of connections and of queries, each refused, ends at its bound', async () => {
  for (const [type, payload] of [[frameTypes.OPEN, target], [frameTypes.QUERY, Buffer.alloc(12)]] as const) {
    const rig = await executingRig({});
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i <= limits.egressAttemptsMax; i++) {
      rig.guest.send(type, 16 + i, payload);
      if (i % 1000 === 0) await settle();
    }
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'over-limit' });
    rig.guest.take();
    assert.ok(process.memoryUsage().arrayBuffers - before < 64 << 20);
  }
});

test('a guest that asks and never reads gets no answers, and the queue for it stays small', async () => {
  const rig = await executingRig({ broker: accepting(Buffer.alloc(4096)), highWaterMark: 1000 });
  rig.transport.reads = false;
  for (let i = 0; i < 10_000; i++) rig.guest.send(frameTypes.QUERY, 16 + i, Buffer.alloc(12));
  await settle();
  assert.ok(rig.transport.writableLength < 10_000, `${rig.transport.writableLength} bytes wait`);
});

for (const [name, violation, attack] of [
  ['DATA beyond the window', 'no-credit', (rig) => {
    for (let i = 0; i < 3; i++) rig.guest.send(frameTypes.DATA, 16, Buffer.alloc(limits.egressWindowBytes / 2));
  }],
  ['CREDIT for bytes that were never sent', 'credit', (rig) => rig.guest.send(frameTypes.CREDIT, 16, encodeCredit(1))],
  ['CREDIT of nothing', 'credit', (rig) => rig.guest.send(frameTypes.CREDIT, 16, encodeCredit(0))],
  ['an END that claims more', 'end-total', (rig) => {
    rig.guest.send(frameTypes.END, 16, encodeEnd({ totalBytes: 9, truncated: false }));
  }],
  ['two ENDs', 'after-end', (rig) => {
    for (let i = 0; i < 2; i++) rig.guest.send(frameTypes.END, 16, encodeEnd({ totalBytes: 0, truncated: false }));
  }],
  ['DATA on a stream that nobody opened', 'order', (rig) => rig.guest.send(frameTypes.DATA, 17, Buffer.alloc(1))],
  ['RESET of a stream that nobody opened', 'order', (rig) => rig.guest.send(frameTypes.RESET, 17, encodeReset('gone'))],
  ['OPEN of a number twice', 'order', (rig) => open(rig, 16)],
  ['QUERY with the number of a connection', 'order', (rig) => rig.guest.send(frameTypes.QUERY, 16, Buffer.alloc(12))],
] as readonly [string, string, (rig: ExecutingRig) => void][]) {
  test(name, async () => {
    const broker = accepting();
    const rig = await executingRig({ broker });
    open(rig, 16);
    attack(rig);
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation });
    assert.equal(broker.reset, 1);
  });
}

test('bytes for a connection that the host has ended: what had credit is ignored, more is a violation', async () => {
  const broker = accepting();
  const rig = await executingRig({ broker });
  open(rig, 16);
  await settle();
  broker.guests[0]?.reset('limit');
  for (let i = 0; i < 2; i++) rig.guest.send(frameTypes.DATA, 16, Buffer.alloc(limits.egressWindowBytes / 2));
  await settle();
  assert.equal(rig.session.status.state, 'executing');
  rig.guest.send(frameTypes.DATA, 16, Buffer.alloc(1));
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'no-credit' });
});

test('a connection before START, and DATA before its ACCEPT', async () => {
  const early = await provedRig();
  early.guest.send(frameTypes.OPEN, 16, target);
  await assertFailed(early, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
  const silent: Broker = { open: () => ({ data() {}, end() {}, reset() {}, writable() {} }), query: () => undefined };
  const rig = await executingRig({ broker: silent });
  open(rig, 16);
  rig.guest.send(frameTypes.DATA, 16, Buffer.alloc(1));
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'order' });
});

test('what a function that is loaded ahead asks waits for the broker of its event', async () => {
  const broker = accepting(Buffer.alloc(12));
  const { session, guest } = await provedRig();
  void session.start(Buffer.alloc(0));
  guest.send(frameTypes.OPEN, 16, target);
  guest.send(frameTypes.QUERY, 17, Buffer.alloc(12));
  guest.send(frameTypes.OPEN, 18, target);
  guest.send(frameTypes.RESET, 18, encodeReset('gone'));
  await settle();
  assert.deepEqual([broker.guests.length, session.status.state], [0, 'started']);
  guest.take();
  void session.execute({ stdin: Buffer.alloc(0), wallMillis: 1000, broker }).catch(() => {});
  await settle();
  const told = guest.take().filter(({ stream }) => stream >= 16).map(({ type, stream }) => [type, stream]);
  assert.deepEqual(told, [[frameTypes.ACCEPT, 16], [frameTypes.ANSWER, 17]]);
  session.close();
});

test('without a broker every connection is refused and no query answered', async () => {
  const rig = await executingRig();
  rig.guest.take();
  open(rig, 16);
  rig.guest.send(frameTypes.QUERY, 17, Buffer.alloc(12));
  await settle();
  const told = rig.guest.take().map(({ type, stream, payload }) => [type, stream, [...payload]]);
  assert.deepEqual(told, [[frameTypes.RESET, 16, [1]]]);
});
