/**
 * Goal: the broker dials only what the policy allows at that moment, and every end of a connection is told and counted.
 * Method: the real broker with a resolver of the test and sockets on loopback; the guest is a list of what it is told.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import packet from 'dns-packet';
import { EgressBroker } from '../../../src/egress/broker.ts';
import type { GuestEnd, WorldEnd } from '../../../src/egress/contract.ts';
import { parseNetworkFile } from '../../../src/egress/parse.ts';
import { clock } from '../../vm/rig.ts';

class Guest implements GuestEnd {
  readonly told: string[] = [];
  usedBytes = 0;
  takes = true;
  readonly #waiting: { readonly words: string; readonly wake: () => void }[] = [];

  accept(): void { this.#tell('accept'); }
  write(chunk: Buffer): boolean { this.#tell(`data ${chunk.toString()}`); return this.takes; }
  end(): void { this.#tell('end'); }
  reset(reason: string): void { this.#tell(`reset ${reason}`); }
  used(bytes: number): void { this.usedBytes += bytes; }

  async until(words: string): Promise<void> {
    if (this.told.includes(words)) return;
    await new Promise<void>((wake) => this.#waiting.push({ words, wake }));
  }

  #tell(words: string): void {
    this.told.push(words);
    for (const each of this.#waiting) if (each.words === words) each.wake();
  }
}

interface World {
  readonly broker: EgressBroker;
  readonly resolved: string[];
  readonly dialled: string[];
  open(address: string, port?: number): { readonly guest: Guest; readonly world: WorldEnd };
  /** The address that stands for a name. */
  lookUp(name: string): string;
}

/** Every dial leads to `port` on loopback, whatever was dialled. */
function worldOf(policy: unknown, answers: readonly (readonly string[])[], port: number): World {
  const resolved: string[] = [];
  const dialled: string[] = [];
  const broker = new EgressBroker({
    policy: parseNetworkFile(JSON.stringify(policy)),
    clock,
    network: {
      async resolve(name) {
        resolved.push(name);
        return answers[Math.min(resolved.length, answers.length) - 1] ?? [];
      },
      dial(address, asked) {
        dialled.push(`${address}:${asked}`);
        return connect({ host: '127.0.0.1', port: asked === 1 ? 1 : port, allowHalfOpen: true });
      },
    },
  });
  return {
    broker, resolved, dialled,
    open(address, to = 443) {
      const guest = new Guest();
      return { guest, world: broker.open({ address, port: to }, guest) };
    },
    lookUp(name) {
      const query = packet.encode({ type: 'query', id: 1, questions: [{ type: 'A', name }] });
      const [answer] = packet.decode(broker.query(query) ?? Buffer.alloc(12)).answers ?? [];
      return answer?.type === 'A' ? answer.data : '';
    },
  };
}

async function serving(serve: (socket: Socket) => void, work: (port: number) => Promise<void>): Promise<void> {
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket.on('error', () => {}));
    serve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await work((server.address() as { port: number }).port);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

const echo = (socket: Socket): void => void socket.pipe(socket);

test('a name: two verdicts, a dial, bytes and ends both ways', () => serving(echo, async (port) => {
  const { broker, open, lookUp, dialled } = worldOf({ rules: [{ allow: 'a.test:443' }] }, [['8.8.8.8']], port);
  const { guest, world } = open(lookUp('A.test.'));
  await guest.until('accept');
  world.data(Buffer.from('hi'));
  await guest.until('data hi');
  world.end();
  await guest.until('end');
  assert.deepEqual(dialled, ['8.8.8.8:443']);
  assert.equal(guest.usedBytes, 2);
  const [flow] = broker.report().flows;
  assert.deepEqual({ ...flow, at: 0, millis: 0 }, {
    at: 0, millis: 0, name: 'a.test', address: '8.8.8.8', port: 443,
    protocol: 'tcp', verdict: 'allowed', because: 'rule 1: allow a.test:443', sentBytes: 2, receivedBytes: 2, tls: null,
  });
}));

test('B6: a name that leads to another address later is judged by that address', () => serving(echo, async (port) => {
  const answers = [['8.8.8.8'], ['169.254.169.254', '10.0.0.1']];
  const { broker, open, lookUp, dialled } = worldOf({ rules: [{ allow: 'a.test' }] }, answers, port);
  const address = lookUp('a.test');
  const first = open(address);
  await first.guest.until('accept');
  const second = open(address);
  await second.guest.until('reset denied');
  assert.deepEqual(dialled, ['8.8.8.8:443']);
  const denied = broker.report().flows.find(({ verdict }) => verdict === 'denied');
  assert.match(denied?.because ?? '', /private: no rule|linkLocal: no rule/);
  first.world.reset();
}));

test('nothing is resolved or dialled for what is denied, nor for an address that stands for no name', async () => {
  const { broker, open, lookUp, resolved, dialled } = worldOf({ rules: [{ allow: 'a.test:80' }] }, [['8.8.8.8']], 1);
  assert.equal(lookUp('b.test'), '');
  for (const where of [`${lookUp('a.test')}:443`, '198.18.3.3:80', '8.8.8.8:80', '127.0.0.1:80']) {
    const [address = '', port] = where.split(':');
    await open(address, Number(port)).guest.until('reset denied');
  }
  assert.deepEqual([resolved, dialled], [[], []]);
  assert.equal(broker.report().totals.denied, 4);
});

test('what cannot be dialled or resolved fails, the next address is tried', () => serving(echo, async (port) => {
  const refused = worldOf({ rules: [{ allow: 'a.test' }] }, [['8.8.8.8', '8.8.4.4']], 1);
  await refused.open(refused.lookUp('a.test')).guest.until('reset unreachable');
  assert.deepEqual(refused.dialled, ['8.8.8.8:443', '8.8.4.4:443']);
  assert.equal(refused.broker.report().totals.failed, 1);
  const nowhere = worldOf({ rules: [{ allow: 'a.test' }] }, [[]], port);
  await nowhere.open(nowhere.lookUp('a.test')).guest.until('reset denied');
}));

test('limits of bytes, of connections and of their rate', () => serving(echo, async (port) => {
  const rules = [{ allow: '8.8.8.8' }];
  const bytes = worldOf({ rules, limits: { bytes: 5 } }, [], port);
  const { guest, world } = bytes.open('8.8.8.8');
  await guest.until('accept');
  world.data(Buffer.from('abcdef'));
  await guest.until('reset limit');
  assert.match(bytes.broker.report().flows[0]?.because ?? '', /more than 5 bytes/);
  const count = worldOf({ rules, limits: { connections: 1 } }, [], port);
  const only = count.open('8.8.8.8');
  await only.guest.until('accept');
  await count.open('8.8.8.8').guest.until('reset limit');
  only.world.reset();
  const rate = worldOf({ rules, limits: { connectionsPerSecond: 1 } }, [], port);
  const opened = Array.from({ length: 12 }, () => rate.open('8.8.8.8'));
  await opened.at(-1)?.guest.until('reset limit');
  for (const each of opened) each.world.reset();
}));

const never = (socket: Socket): void => void socket.pause();

test('single bytes that a slow server does not take cost one buffer', () => serving(never, async (port) => {
  const { open } = worldOf({ rules: [{ allow: '8.8.8.8' }] }, [], port);
  const { guest, world } = open('8.8.8.8');
  await guest.until('accept');
  // Fills the kernel's buffers first, then what is left of a window byte by byte.
  const block = Buffer.alloc(65_536);
  let sent = 0;
  for (let i = 0; i < 400 && sent - guest.usedBytes < 65_536; i++) {
    world.data(block);
    sent += block.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  const before = process.memoryUsage();
  for (let i = 0; i < 60_000; i++) world.data(Buffer.from([i & 255]));
  const after = process.memoryUsage();
  const grown = after.arrayBuffers - before.arrayBuffers;
  assert.ok(grown < 8 << 20, `${grown} bytes of buffers`);
  world.reset();
}));

test('DNS over TCP: to any server, in pieces, and never a message that is too long', () => {
  const { open } = worldOf({ rules: [{ allow: 'a.test' }] }, [], 1);
  const { guest, world } = open('9.9.9.9', 53);
  const query = packet.streamEncode({ type: 'query', id: 9, questions: [{ type: 'A', name: 'a.test' }] });
  for (const byte of query) world.data(Buffer.from([byte]));
  assert.equal(guest.told.length, 2);
  world.data(Buffer.from([0xff, 0xff]));
  assert.equal(guest.told.at(-1), 'reset gone');
});
