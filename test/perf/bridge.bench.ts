/**
 * How fast the bridge's host side is: `node test/perf/bridge.bench.ts` prints a table. No assertion on time: on a
 * shared machine that would only measure the neighbours.
 */
import { encodeFrame, FrameDecoder, frameTypes, streams } from '../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../src/bridge/message.ts';
import { limits } from '../../src/core/limits.ts';
import { cloneNonce, configuration, executingRig, exit, facts, finishRun } from '../unit/bridge/rig.ts';

const MiB = 1024 * 1024;
/** What a socket delivers at once. */
const CHUNK_BYTES = 64 * 1024;
const ROUNDS = 5;

interface Row {
  readonly what: string;
  readonly items: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** The best of a few rounds: the others measure the machine's other work. */
async function measure(what: string, items: number, bytes: number, work: () => void | Promise<void>): Promise<Row> {
  let seconds = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await work();
    seconds = Math.min(seconds, (performance.now() - start) / 1000);
  }
  return { what, items, bytes, seconds };
}

function encodeMany(count: number, payload: Buffer): Buffer[] {
  return Array.from({ length: count }, (_, sequence) =>
    encodeFrame({ type: frameTypes.DATA, sequence, stream: streams.output, nonce: cloneNonce, payload }));
}

async function decodeRow(payloadBytes: number, chunkBytes: number): Promise<Row> {
  const count = Math.min(50_000, Math.ceil((16 * MiB) / (payloadBytes + limits.frameHeaderBytes)));
  const bytes = Buffer.concat(encodeMany(count, Buffer.alloc(payloadBytes)));
  return await measure(`decode, payload ${payloadBytes}, chunks of ${chunkBytes}`, count, bytes.length, () => {
    const decoder = new FrameDecoder({ from: 'guest', nonce: cloneNonce });
    let frames = 0;
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      for (const frame of decoder.push(bytes.subarray(at, at + chunkBytes))) frames += frame.payload.length > 0 ? 1 : 0;
    }
    if (frames !== count) throw new Error(`${frames} frames of ${count}`);
  });
}

async function encodeRow(payloadBytes: number): Promise<Row> {
  const payload = Buffer.alloc(payloadBytes);
  const count = Math.min(50_000, Math.ceil((16 * MiB) / (payloadBytes + limits.frameHeaderBytes)));
  const bytes = count * (payloadBytes + limits.frameHeaderBytes);
  return await measure(`encode, payload ${payloadBytes}`, count, bytes, () => {
    for (let sequence = 0; sequence < count; sequence++) {
      encodeFrame({ type: frameTypes.DATA, sequence, stream: streams.output, nonce: cloneNonce, payload });
    }
  });
}

async function messageRow(what: string, type: number, payload: Buffer): Promise<Row> {
  return await measure(`decode message ${what}`, 2000, 2000 * payload.length, () => {
    for (let count = 0; count < 2000; count++) decodeMessage(type, payload);
  });
}

/** One execution's output through a session: transport, decoder, credit, collector. */
async function sessionRow(payloadBytes: number): Promise<Row> {
  const total = limits.outputBytesMax - (limits.outputBytesMax % payloadBytes);
  const payload = Buffer.alloc(payloadBytes);
  return await measure(`session, output in frames of ${payloadBytes}`, total / payloadBytes, total, async () => {
    const { guest, execution } = await executingRig();
    for (let sent = 0; sent < total; sent += payloadBytes) guest.data('output', payload);
    finishRun(guest, { output: total });
    if ((await execution).output.length !== total) throw new Error('output is missing');
  });
}

const manyFacts = Array.from({ length: 40 }, (_, at) => `${facts[at % facts.length]}-${'x'.repeat(20)}`);
const rows = [
  await decodeRow(1, CHUNK_BYTES),
  await decodeRow(64, CHUNK_BYTES),
  await decodeRow(1024, CHUNK_BYTES),
  await decodeRow(16 * 1024, CHUNK_BYTES),
  await decodeRow(limits.framePayloadBytesMax, CHUNK_BYTES),
  await decodeRow(limits.framePayloadBytesMax, 16 * MiB),
  await decodeRow(64, 1),
  await encodeRow(64),
  await encodeRow(limits.framePayloadBytesMax),
  await messageRow('EXIT', messages.EXIT.type, encodeMessage('EXIT', exit)),
  await messageRow('PROOF of 40 facts', messages.PROOF.type, encodeMessage('PROOF', { fact: manyFacts })),
  await messageRow('CONFIGURE', messages.CONFIGURE.type, encodeMessage('CONFIGURE', {
    ...configuration.limits, argv: ['/usr/bin/node'], env: ['HOME=/tmp'], uid: 1000, gid: 1000,
    policy: configuration.policy, filter: configuration.filter,
  })),
  await sessionRow(64),
  await sessionRow(32 * 1024),
];

const width = Math.max(...rows.map(({ what }) => what.length));
process.stdout.write(`${'bridge'.padEnd(width)}  ${'per second'.padStart(12)}  ${'MB/s'.padStart(8)}\n`);
for (const { what, items, bytes, seconds } of rows) {
  const rate = Math.round(items / seconds).toLocaleString('en-US').padStart(12);
  process.stdout.write(`${what.padEnd(width)}  ${rate}  ${(bytes / seconds / 1e6).toFixed(1).padStart(8)}\n`);
}
