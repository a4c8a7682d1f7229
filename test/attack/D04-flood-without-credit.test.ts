/**
 * D4: a flood without credit. The session fails at the first byte over the window or the stream's limit, reads nothing
 * any more, and the flood waits in the kernel's socket buffer: the host's memory does not grow.
 * Method: an attacker in another process behind a real socket pair, writing without ever reading.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import { encodeMessage, messages } from '../../src/bridge/message.ts';
import { Session } from '../../src/bridge/session.ts';
import { limits } from '../../src/core/limits.ts';
import { assertFailed, configuration, executingRig, identity, ManualClock, settle } from '../unit/bridge/rig.ts';

setFlagsFromString('--expose-gc');
/** What is garbage says when the collector came last, not what the host holds. */
const collect = runInNewContext('gc') as () => void;
const attackerPath = fileURLToPath(new URL('./flood.ts', import.meta.url));
const MiB = 1024 * 1024;

interface Flood {
  readonly name: string;
  readonly type: number;
  readonly stream: number;
  readonly payload: Buffer;
  readonly violation: string;
  /** The most that the host may read before it stops, bytes. */
  readonly readMax: number;
}

const floods: readonly Flood[] = [
  { name: 'output', type: frameTypes.DATA, stream: streams.output, payload: Buffer.alloc(32_768),
    violation: 'over-limit', readMax: limits.outputBytesMax + MiB },
  { name: 'single bytes of stdout', type: frameTypes.DATA, stream: streams.stdout, payload: Buffer.alloc(1),
    violation: 'over-limit', readMax: 25 * limits.stdoutBytesMax + MiB },
  { name: 'credits', type: frameTypes.CREDIT, stream: streams.stdin, payload: Buffer.from([1, 0, 0, 0]),
    violation: 'credit', readMax: MiB },
  { name: 'proofs', type: messages.PROOF.type, stream: 0, payload: encodeMessage('PROOF', { fact: ['a=1'] }),
    violation: 'order', readMax: MiB },
];

for (const { name, type, stream, payload, violation, readMax } of floods) {
  test(`flood of ${name}`, async () => {
    const attacker = spawn(process.execPath, [attackerPath, `${type}`, `${stream}`, payload.toString('hex')], {
      stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
    });
    const transport = attacker.stdio[3] as Socket;
    const session = new Session({ transport, clock: new ManualClock() });
    try {
      await Promise.all([session.adopt(identity), session.configure(configuration, [])]);
      collect();
      const before = process.memoryUsage();
      await assert.rejects(session.execute({ stdin: Buffer.alloc(0), wallMillis: 1000 }), { code: 'E_GUEST_PROTOCOL' });
      const { status } = session;
      assert.ok(status.state === 'failed' && status.violation === violation, JSON.stringify(status));
      const read = transport.bytesRead;
      assert.ok(read < readMax, `the host read ${read} bytes`);
      await sleep(300);
      assert.ok(transport.isPaused());
      assert.ok(transport.bytesRead - read <= 128 * 1024, 'the host goes on reading');
      collect();
      const grown = process.memoryUsage().arrayBuffers - before.arrayBuffers;
      assert.ok(grown < readMax + 16 * MiB, `buffers grew by ${grown} bytes`);
    } finally {
      attacker.kill('SIGKILL');
      await once(attacker, 'exit');
      session.close();
    }
  });
}

test('what is granted in time may be used up to the limit of the stream, and no byte more', async () => {
  const rig = await executingRig();
  for (let sent = 0; sent < limits.outputBytesMax; sent += 65_536) rig.guest.data('output', Buffer.alloc(65_536));
  await settle();
  assert.equal(rig.session.status.state, 'executing');
  rig.guest.data('output', 'x');
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'over-limit' });
});

test('a guest that never reads its credit fills its window and no more', async () => {
  const rig = await executingRig({ highWaterMark: 20 });
  rig.transport.reads = false;
  // The first credit is written and fills the queue; what comes after the window that it opened is too much.
  const allowed = limits.streamWindowBytes * 1.5;
  for (let sent = 0; sent < allowed; sent += 65_536) rig.guest.data('output', Buffer.alloc(65_536));
  await settle();
  assert.equal(rig.session.status.state, 'executing');
  rig.guest.data('output', 'x');
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'no-credit' });
});
