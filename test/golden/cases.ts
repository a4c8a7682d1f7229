/**
 * Every golden case: what is encoded, and what a decoder of those bytes must find. Names that start with `bad-` must be
 * refused with the named violation, after `framesBefore` good frames.
 */
import { createHash } from 'node:crypto';
import { encodeFrame, FrameDecoder, frameTypes, ProtocolError, streams } from '../../src/bridge/frame.ts';
import type { Frame, Side } from '../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../src/bridge/message.ts';
import type { Message, MessageName } from '../../src/bridge/message.ts';
import {
  decodeCredit, decodeEnd, decodeOpen, decodeReset, encodeCredit, encodeEnd, encodeOpen, encodeReset,
} from '../../src/bridge/streams.ts';
import { limits } from '../../src/core/limits.ts';

export interface GoldenCase {
  readonly name: string;
  /** Who sends it. */
  readonly from: Side;
  /** What the decoder expects when the bytes begin. */
  readonly nonce: bigint;
  readonly bytes: Buffer;
}

/** The clone's nonce in every case that has one. */
const cloneNonce = 0x0123_4567_89ab_cdefn;

// ---- building blocks -----------------------------------------------------------------------------------------------

type Part = Omit<Frame, 'sequence' | 'nonce'>;

function message<N extends MessageName>(name: N, fields: Message<N>): Part {
  return { type: messages[name].type, stream: 0, payload: encodeMessage(name, fields) };
}

function data(stream: number, payload: Buffer): Part {
  return { type: frameTypes.DATA, stream, payload };
}

function end(stream: number, totalBytes: number, truncated = false): Part {
  return { type: frameTypes.END, stream, payload: encodeEnd({ totalBytes, truncated }) };
}

function credit(stream: number, bytes: number): Part {
  return { type: frameTypes.CREDIT, stream, payload: encodeCredit(bytes) };
}

/** Frames of one direction under one nonce, counted from 0. */
function frames(nonce: bigint, parts: readonly Part[]): Buffer {
  return Buffer.concat(parts.map((part, sequence) => encodeFrame({ ...part, sequence, nonce })));
}

function good(name: string, from: Side, part: Part, nonce = cloneNonce): GoldenCase {
  const before = nonce === 0n || part.type === frameTypes.ADOPT ? 0n : nonce;
  return { name, from, nonce: before, bytes: frames(nonce, [part]) };
}

/** One message whose payload is written by hand. */
function raw(name: string, from: Side, type: MessageName, payload: Buffer): GoldenCase {
  return good(name, from, { type: messages[type].type, stream: 0, payload });
}

function field(tag: number, value: Buffer | string, length = Buffer.from(value).length): Buffer {
  const header = Buffer.alloc(6);
  header.writeUInt16LE(tag, 0);
  header.writeUInt32LE(length, 2);
  return Buffer.concat([header, Buffer.from(value)]);
}

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** A good frame with some bytes of it overwritten. */
function patched(name: string, from: Side, part: Part, patch: (bytes: Buffer) => void): GoldenCase {
  const made = good(name, from, part);
  patch(made.bytes);
  return made;
}

// ---- values --------------------------------------------------------------------------------------------------------

const identity = {
  clockUnixNanos: 1_764_000_000_123_456_789n,
  machineId: '0f1e2d3c4b5a69788796a5b4c3d2e1f0',
  bootId: '6f1c1c9e-2a55-4a40-8d0c-0d4f6f6d2b11',
  hostname: 'mayfly',
};
const hello = message('HELLO', {
  protocol: 1, agentVersion: '0.1.0', kernelRelease: '6.1.0-38-cloud-amd64', memoryBytes: 268_435_456,
  policyFeatures: 'caps {mask {chown kill\n}\n}\n',
});
const ready = message('READY', { warm: 1 });
const adopted = message('ADOPTED', { reseeded: 1, ...identity });
const proof = message('PROOF', { fact: ['uid=1000', 'groups=', 'mount./=overlay nodev,nosuid,rw'] });
const exit = message('EXIT', {
  exitCode: 0, signal: 0, cpuMicros: 41_250, memoryPeakBytes: 52_428_800, oomKills: 0, pidsMaxHits: 0,
});
const fault = message('FAULT', { code: 'E_CLONE_NOT_UNIQUE', message: 'RNDADDENTROPY: Ελλάδα 🪰' });
const argv = ['/usr/bin/node', '/opt/mayfly/shim.mjs', ''];
const env = ['PATH=/usr/bin:/bin', 'HOME=/tmp'];
const policy = Buffer.from('04080076657273696f6e0002', 'hex');
const prepare = message('PREPARE', { argv, env, uid: 1000, gid: 1000, scratchBytes: 67_108_864, policy });
const adopt = message('ADOPT', { entropy: Buffer.from(Array.from({ length: 64 }, (_, i) => i)), ...identity });
const configureFields: Message<'CONFIGURE'> = {
  memoryBytes: 268_435_456, cpuQuotaMicros: 100_000, cpuPeriodMicros: 100_000, pids: 128, openFiles: 1024,
  scratchBytes: 67_108_864, stdoutBytes: 1_048_576, stderrBytes: 1_048_576, outputBytes: 6_291_456,
  argv, env, uid: 1000, gid: 1000, policy, filter: Buffer.from('06000000000ff7f00', 'hex'),
};
const configure = message('CONFIGURE', configureFields);
const handler = Buffer.from('export default async () => 42;\n');
const file = message('FILE', { path: 'h.mjs', kind: 0, mode: 0o644, size: handler.length, target: '' });
const folder = message('FILE', { path: 'lib', kind: 1, mode: 0o755, size: 0, target: '' });
const link = message('FILE', { path: 'lib/again.mjs', kind: 2, mode: 0o777, size: 0, target: '../h.mjs' });
const start = message('START', {});
const event = Buffer.from('{"specversion":"1.0","id":"1","source":"/t","type":"t"}');
const result = Buffer.from('{"ok":true,"value":42}');

const largestDataBytes = limits.framePayloadBytesMax;
const zeros = Buffer.alloc(largestDataBytes);

function open(stream: number, address: string, port: number): Part {
  return { type: frameTypes.OPEN, stream, payload: encodeOpen({ address, port }) };
}

/** `api.example A`, with its id and the wish for recursion. */
const dnsQuery = Buffer.from('12340100000100000000000003617069076578616d706c650000010001', 'hex');

// ---- cases ---------------------------------------------------------------------------------------------------------

const goodCases: readonly GoldenCase[] = [
  good('hello', 'guest', hello, 0n),
  good('ready', 'guest', ready, 0n),
  good('adopted', 'guest', adopted),
  good('proof', 'guest', proof),
  good('proof-empty', 'guest', message('PROOF', { fact: [] })),
  good('proof-most-fields', 'guest', message('PROOF', { fact: Array.from({ length: limits.fieldsMax }, () => 'a=1') })),
  good('exit', 'guest', exit),
  good('exit-largest', 'guest', message('EXIT', {
    exitCode: 255, signal: 64, cpuMicros: Number.MAX_SAFE_INTEGER, memoryPeakBytes: Number.MAX_SAFE_INTEGER,
    oomKills: Number.MAX_SAFE_INTEGER, pidsMaxHits: Number.MAX_SAFE_INTEGER,
  })),
  good('fault', 'guest', fault),
  good('fault-longest-field', 'guest', message('FAULT', { code: '', message: 'x'.repeat(limits.fieldBytesMax) })),
  good('prepare', 'host', prepare, 0n),
  good('adopt', 'host', adopt),
  good('adopt-largest-nonce', 'host', adopt, 0xffff_ffff_ffff_ffffn),
  good('configure', 'host', configure),
  good('configure-no-lists', 'host', message('CONFIGURE', { ...configureFields, argv: [], env: [] })),
  good('file', 'host', file),
  good('file-folder', 'host', folder),
  good('file-link', 'host', link),
  good('start', 'host', start),
  good('data-stdout', 'guest', data(streams.stdout, Buffer.from('hello\n'))),
  good('data-one-byte', 'guest', data(streams.output, Buffer.from([0]))),
  good('data-largest', 'guest', data(streams.output, zeros)),
  good('data-stdin', 'host', data(streams.stdin, event)),
  good('data-code', 'host', data(streams.code, handler)),
  good('end-stderr', 'guest', end(streams.stderr, 0)),
  good('end-truncated', 'guest', end(streams.stdout, 1_048_576, true)),
  good('end-code', 'host', end(streams.code, 31)),
  good('credit-stdin', 'guest', credit(streams.stdin, 131_072)),
  good('credit-output', 'host', credit(streams.output, 0xffff_ffff)),
  good('open', 'guest', open(16, '93.184.216.34', 443)),
  good('open-largest', 'guest', open(0x7fff_ffff, '255.255.255.255', 65_535)),
  good('stop', 'host', message('STOP', {})),
  good('open-host', 'host', open(0x8000_0000, '127.0.0.1', 8080)),
  good('open-host-largest', 'host', open(0x8000_ffff, '127.0.0.1', 65_535)),
  good('accept-guest', 'guest', { type: frameTypes.ACCEPT, stream: 0x8000_0000, payload: Buffer.alloc(0) }),
  good('data-connection-of-host', 'guest', data(0x8000_0000, Buffer.from('HTTP/1.1 200 OK\r\n'))),
  good('accept', 'host', { type: frameTypes.ACCEPT, stream: 16, payload: Buffer.alloc(0) }),
  good('reset-guest', 'guest', { type: frameTypes.RESET, stream: 16, payload: encodeReset('gone') }),
  good('reset-denied', 'host', { type: frameTypes.RESET, stream: 17, payload: encodeReset('denied') }),
  good('query', 'guest', { type: frameTypes.QUERY, stream: 18, payload: dnsQuery }),
  good('answer', 'host', { type: frameTypes.ANSWER, stream: 18, payload: dnsQuery }),
  good('data-connection-guest', 'guest', data(16, Buffer.from('GET / HTTP/1.1\r\n'))),
  good('data-connection-host', 'host', data(16, Buffer.from('HTTP/1.1 200 OK\r\n'))),
  good('end-connection-host', 'host', end(16, 17)),
  good('credit-connection-guest', 'guest', credit(16, 65_536)),
  good('credit-connection-host', 'host', credit(16, 65_536)),
  { name: 'exchange-template-host', from: 'host', nonce: 0n, bytes: frames(0n, [prepare]) },
  { name: 'exchange-template-guest', from: 'guest', nonce: 0n, bytes: frames(0n, [hello, ready]) },
  { name: 'exchange-clone-host', from: 'host', nonce: 0n, bytes: frames(cloneNonce, [
    adopt, configure, file, data(streams.code, handler), folder, link, end(streams.code, handler.length),
    start, data(streams.stdin, event), end(streams.stdin, event.length),
  ]) },
  { name: 'exchange-clone-guest', from: 'guest', nonce: cloneNonce, bytes: frames(cloneNonce, [
    adopted, proof, data(streams.stdout, Buffer.from('hello\n')), data(streams.output, result),
    end(streams.stdout, 6), end(streams.stderr, 0), end(streams.output, result.length), exit,
  ]) },
  // What the guest's decoder sees in a real life: the template's frame, then those of the clone under its own nonce.
  { name: 'exchange-template-then-adopt', from: 'host', nonce: 0n, bytes: Buffer.concat([
    frames(0n, [prepare]), frames(cloneNonce, [adopt, configure, end(streams.code, 0)]),
  ]) },
];

const one = data(streams.stdout, Buffer.from('x'));
const adoptedFields = [
  field(1, u64(1n)), field(2, u64(identity.clockUnixNanos)), field(3, 'm'), field(4, 'b'), field(5, 'h'),
];

const badFrames: readonly GoldenCase[] = [
  patched('bad-magic', 'guest', one, (bytes) => bytes.write('YM')),
  patched('bad-version-0', 'guest', one, (bytes) => bytes.writeUInt8(0, 2)),
  patched('bad-version-2', 'guest', one, (bytes) => bytes.writeUInt8(2, 2)),
  patched('bad-type-0', 'guest', one, (bytes) => bytes.writeUInt8(0, 3)),
  patched('bad-type-unknown', 'guest', one, (bytes) => bytes.writeUInt8(0x7f, 3)),
  good('bad-stream-open-guest-half', 'host', open(16, '192.0.2.1', 80)),
  good('bad-stream-accept-own-half', 'guest', { type: frameTypes.ACCEPT, stream: 16, payload: Buffer.alloc(0) }),
  good('bad-length-open-short', 'guest', { type: frameTypes.OPEN, stream: 16, payload: Buffer.alloc(19) }),
  good('bad-length-query-long', 'guest', { type: frameTypes.QUERY, stream: 16, payload: Buffer.alloc(4097) }),
  good('bad-length-query-short', 'guest', { type: frameTypes.QUERY, stream: 16, payload: Buffer.alloc(11) }),
  good('bad-stream-open-fixed', 'guest', open(1, '192.0.2.1', 80)),
  good('bad-stream-open-0', 'guest', open(0, '192.0.2.1', 80)),
  good('bad-stream-open-host-half', 'guest', open(0x8000_0000, '192.0.2.1', 80)),
  good('bad-stream-beyond-host-half', 'guest', data(0x8001_0000, Buffer.from('x'))),
  good('bad-stream-query-host-half', 'guest', {
    type: frameTypes.QUERY, stream: 0x8000_0000, payload: Buffer.alloc(12),
  }),
  good('bad-stream-below-connections', 'guest', data(15, Buffer.from('x'))),
  good('bad-type-start-from-guest', 'guest', start),
  good('bad-type-exit-from-host', 'host', exit),
  patched('bad-length-over', 'guest', one, (bytes) => bytes.writeUInt32LE(limits.framePayloadBytesMax + 1, 4)),
  patched('bad-length-negative', 'guest', one, (bytes) => bytes.writeInt32LE(-0x8000_0000, 4)),
  patched('bad-length-largest', 'guest', one, (bytes) => bytes.writeUInt32LE(0xffff_ffff, 4)),
  good('bad-length-data-empty', 'guest', data(streams.stdout, Buffer.alloc(0))),
  good('bad-length-end-short', 'guest', { type: frameTypes.END, stream: 1, payload: Buffer.alloc(8) }),
  good('bad-length-credit-long', 'guest', { type: frameTypes.CREDIT, stream: 4, payload: Buffer.alloc(5) }),
  patched('bad-sequence-not-0', 'guest', one, (bytes) => bytes.writeUInt32LE(1, 8)),
  { name: 'bad-sequence-repeated', from: 'guest', nonce: cloneNonce,
    bytes: Buffer.concat([frames(cloneNonce, [one]), frames(cloneNonce, [one])]) },
  patched('bad-stream-control', 'guest', exit, (bytes) => bytes.writeUInt32LE(1, 12)),
  good('bad-stream-0', 'guest', { ...one, stream: 0 }),
  good('bad-stream-unknown', 'guest', { ...one, stream: 6 }),
  good('bad-stream-largest', 'guest', { ...one, stream: 0xffff_ffff }),
  good('bad-stream-of-host', 'guest', { ...one, stream: streams.stdin }),
  good('bad-stream-of-guest', 'host', one),
  good('bad-stream-credit-to-self', 'guest', credit(streams.stdout, 1)),
  { ...good('bad-nonce-other', 'guest', one), nonce: cloneNonce + 1n },
  { ...good('bad-nonce-high-half', 'guest', one), nonce: cloneNonce + (1n << 32n) },
  { ...good('bad-nonce-of-template', 'guest', one, 0n), nonce: cloneNonce },
  good('bad-nonce-adopt-0', 'host', adopt, 0n),
  { name: 'bad-nonce-adopt-again', from: 'host', nonce: 0n,
    bytes: Buffer.concat([frames(cloneNonce, [adopt]), frames(cloneNonce + 1n, [start, adopt]).subarray(24)]) },
];

const badMessages: readonly GoldenCase[] = [
  raw('bad-field-truncated-header', 'guest', 'READY', Buffer.from([1, 0, 8, 0, 0])),
  raw('bad-field-truncated-value', 'guest', 'READY', field(1, Buffer.alloc(7), 8)),
  raw('bad-field-truncated-text', 'guest', 'PROOF', field(1, 'a=1', 4)),
  raw('bad-field-length-over', 'guest', 'PROOF', field(1, 'x'.repeat(limits.fieldBytesMax + 1))),
  raw('bad-field-length-largest', 'guest', 'PROOF', field(1, 'a=1', 0xffff_ffff)),
  raw('bad-field-count', 'guest', 'PROOF', Buffer.concat(Array(limits.fieldsMax + 1).fill(field(1, '')))),
  raw('bad-field-unknown', 'guest', 'READY', Buffer.concat([field(1, u64(1n)), field(2, u64(1n))])),
  raw('bad-field-unknown-0', 'guest', 'READY', Buffer.concat([field(0, ''), field(1, u64(1n))])),
  raw('bad-field-unknown-in-start', 'host', 'START', field(1, '')),
  raw('bad-field-duplicate', 'guest', 'READY', Buffer.concat([field(1, u64(0n)), field(1, u64(1n))])),
  raw('bad-field-missing', 'guest', 'ADOPTED', Buffer.concat(adoptedFields.slice(0, 4))),
  raw('bad-field-missing-all', 'guest', 'HELLO', Buffer.alloc(0)),
  raw('bad-field-width-short', 'guest', 'READY', field(1, Buffer.alloc(4))),
  raw('bad-field-width-long', 'guest', 'READY', field(1, Buffer.alloc(9))),
  raw('bad-field-width-empty', 'guest', 'READY', field(1, '')),
  raw('bad-field-width-entropy', 'host', 'ADOPT', field(1, Buffer.alloc(63))),
  raw('bad-field-value-unsafe', 'guest', 'EXIT', Buffer.concat([
    field(1, u64(0n)), field(2, u64(0n)), field(3, u64(2n ** 53n)),
  ])),
  raw('bad-field-value-largest', 'guest', 'EXIT', Buffer.concat([
    field(1, u64(0n)), field(2, u64(0n)), field(3, u64(2n ** 64n - 1n)),
  ])),
  raw('bad-field-value-exit-256', 'guest', 'EXIT', field(1, u64(256n))),
  raw('bad-field-value-signal-65', 'guest', 'EXIT', field(2, u64(65n))),
  raw('bad-field-value-warm-2', 'guest', 'READY', field(1, u64(2n))),
  raw('bad-field-value-kind-3', 'host', 'FILE', field(2, u64(3n))),
  raw('bad-field-nul', 'guest', 'PROOF', field(1, 'uid=0\0')),
  raw('bad-field-utf8-byte', 'guest', 'PROOF', field(1, Buffer.from([0x61, 0xff]))),
  raw('bad-field-utf8-cut', 'guest', 'PROOF', field(1, Buffer.from([0xe2, 0x82]))),
  raw('bad-field-utf8-overlong', 'guest', 'PROOF', field(1, Buffer.from([0xc0, 0xaf]))),
  raw('bad-field-utf8-surrogate', 'guest', 'PROOF', field(1, Buffer.from([0xed, 0xa0, 0x80]))),
  raw('bad-field-utf8-beyond', 'guest', 'PROOF', field(1, Buffer.from([0xf4, 0x90, 0x80, 0x80]))),
  patched('bad-open-family', 'guest', open(16, '192.0.2.1', 80), (bytes) => bytes.writeUInt8(6, 24)),
  patched('bad-open-port-0', 'guest', open(16, '192.0.2.1', 80), (bytes) => bytes.writeUInt16LE(0, 26)),
  patched('bad-open-padding', 'guest', open(16, '192.0.2.1', 80), (bytes) => bytes.writeUInt8(1, 43)),
  good('bad-reset-reason', 'guest', { type: frameTypes.RESET, stream: 16, payload: Buffer.from([5]) }),
  good('bad-end-flag', 'guest', { type: frameTypes.END, stream: 1, payload: Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 2]) }),
];

export const cases: readonly GoldenCase[] = [...goodCases, ...badFrames, ...badMessages];

// ---- description ---------------------------------------------------------------------------------------------------

/** What a decoder finds in the bytes, as the text of the case's JSON file. */
export function describe({ from, nonce, bytes }: Omit<GoldenCase, 'name'>): string {
  const found: unknown[] = [];
  const report = (violation: string): string =>
    `${JSON.stringify({ from, nonceExpected: hex(nonce), violation, frames: found }, null, 2)}\n`;
  try {
    const decoder = new FrameDecoder({ from, nonce });
    for (const frame of decoder.push(bytes)) found.push(describeFrame(frame));
    return report(decoder.midFrame ? 'incomplete' : 'none');
  } catch (thrown) {
    if (thrown instanceof ProtocolError) return report(thrown.violation);
    throw thrown;
  }
}

function describeFrame({ type, sequence, stream, nonce, payload }: Frame): unknown {
  return { type, sequence, stream, nonce: hex(nonce), payloadBytes: payload.length, ...describePayload(type, payload) };
}

function describePayload(type: number, payload: Buffer): object {
  switch (type) {
    case frameTypes.DATA:
      return { name: 'DATA', data: shown(payload) };
    case frameTypes.END:
      return { name: 'END', ...decodeEnd(payload) };
    case frameTypes.CREDIT:
      return { name: 'CREDIT', bytes: decodeCredit(payload) };
    case frameTypes.OPEN:
      return { name: 'OPEN', ...decodeOpen(payload) };
    case frameTypes.RESET:
      return { name: 'RESET', reason: decodeReset(payload) };
    case frameTypes.ACCEPT:
      return { name: 'ACCEPT' };
    case frameTypes.QUERY:
    case frameTypes.ANSWER:
      return { name: type === frameTypes.QUERY ? 'QUERY' : 'ANSWER', dns: shown(payload) };
    default: {
      const { name, fields } = decodeMessage(type, payload);
      return { name, fields: Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, shown(value)])) };
    }
  }
}

function shown(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (Buffer.isBuffer(value)) return value.length <= 64 ? { hex: value.toString('hex') } : summary(value);
  if (typeof value === 'string' && value.length > 200) return summary(Buffer.from(value));
  if (Array.isArray(value) && value.length > 20) {
    return { values: value.length, ...summary(Buffer.from(value.join('\n'))) };
  }
  return value;
}

function summary(bytes: Buffer): object {
  return { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

function hex(nonce: bigint): string {
  return nonce.toString(16).padStart(16, '0');
}

/** One line per case for readers without a JSON parser: name, sender, nonce expected, violation or `none`, frames. */
export function indexOf(all: readonly GoldenCase[]): string {
  return all.map((each) => {
    const { violation, frames: found } = JSON.parse(describe(each)) as { violation: string; frames: unknown[] };
    return `${[each.name, each.from, hex(each.nonce), violation, found.length].join('\t')}\n`;
  }).join('');
}
