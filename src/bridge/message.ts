/**
 * Control messages: the table of docs/FORMATS.md as data, and one strict codec that reads it. Types come from the same
 * table, so a field cannot exist in one place only.
 *
 * Both directions are encoded and decoded here: the product uses one half each way, the tests and the fake guest the
 * other.
 */
import { isUtf8 } from 'node:buffer';
import { limits } from '../core/limits.ts';
import { frameTypes, ProtocolError } from './frame.ts';
import type { Violation } from './frame.ts';

interface FieldShape {
  readonly tag: number;
  /** `u64` is a safe integer; `nanos` a u64 that needs a bigint; `str` UTF-8 without NUL; `bytes` opaque. */
  readonly kind: 'u64' | 'nanos' | 'str' | 'bytes';
  /** May occur any number of times; every other field occurs exactly once. */
  readonly repeat?: true;
  /** Largest value of a u64. */
  readonly max?: number;
  /** Exact length of bytes; any when absent. */
  readonly length?: number;
}

interface MessageShape {
  readonly type: number;
  readonly fields: Readonly<Record<string, FieldShape>>;
}

/** (uid_t) -1 means "unchanged" to the kernel. */
const ID_MAX = 0xffff_fffe;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

export const messages = {
  HELLO: { type: frameTypes.HELLO, fields: {
    protocol: { tag: 1, kind: 'u64' },
    agentVersion: { tag: 2, kind: 'str' },
    kernelRelease: { tag: 3, kind: 'str' },
    memoryBytes: { tag: 4, kind: 'u64' },
    policyFeatures: { tag: 5, kind: 'str' },
  } },
  READY: { type: frameTypes.READY, fields: {
    warm: { tag: 1, kind: 'u64', max: 1 },
  } },
  ADOPTED: { type: frameTypes.ADOPTED, fields: {
    reseeded: { tag: 1, kind: 'u64', max: 1 },
    clockUnixNanos: { tag: 2, kind: 'nanos' },
    machineId: { tag: 3, kind: 'str' },
    bootId: { tag: 4, kind: 'str' },
    hostname: { tag: 5, kind: 'str' },
  } },
  PROOF: { type: frameTypes.PROOF, fields: {
    fact: { tag: 1, kind: 'str', repeat: true },
  } },
  EXIT: { type: frameTypes.EXIT, fields: {
    exitCode: { tag: 1, kind: 'u64', max: 255 },
    signal: { tag: 2, kind: 'u64', max: 64 },
    cpuMicros: { tag: 3, kind: 'u64' },
    memoryPeakBytes: { tag: 4, kind: 'u64' },
    oomKills: { tag: 5, kind: 'u64' },
    pidsMaxHits: { tag: 6, kind: 'u64' },
  } },
  FAULT: { type: frameTypes.FAULT, fields: {
    code: { tag: 1, kind: 'str' },
    message: { tag: 2, kind: 'str' },
  } },
  PREPARE: { type: frameTypes.PREPARE, fields: {
    argv: { tag: 1, kind: 'str', repeat: true },
    env: { tag: 2, kind: 'str', repeat: true },
    uid: { tag: 3, kind: 'u64', max: ID_MAX },
    gid: { tag: 4, kind: 'u64', max: ID_MAX },
    scratchBytes: { tag: 5, kind: 'u64' },
    policy: { tag: 6, kind: 'bytes' },
  } },
  ADOPT: { type: frameTypes.ADOPT, fields: {
    entropy: { tag: 1, kind: 'bytes', length: 64 },
    clockUnixNanos: { tag: 2, kind: 'nanos' },
    machineId: { tag: 3, kind: 'str' },
    bootId: { tag: 4, kind: 'str' },
    hostname: { tag: 5, kind: 'str' },
  } },
  CONFIGURE: { type: frameTypes.CONFIGURE, fields: {
    memoryBytes: { tag: 1, kind: 'u64' },
    cpuQuotaMicros: { tag: 2, kind: 'u64' },
    cpuPeriodMicros: { tag: 3, kind: 'u64' },
    pids: { tag: 4, kind: 'u64' },
    openFiles: { tag: 5, kind: 'u64' },
    scratchBytes: { tag: 6, kind: 'u64' },
    stdoutBytes: { tag: 7, kind: 'u64' },
    stderrBytes: { tag: 8, kind: 'u64' },
    outputBytes: { tag: 9, kind: 'u64' },
    argv: { tag: 10, kind: 'str', repeat: true },
    env: { tag: 11, kind: 'str', repeat: true },
    uid: { tag: 12, kind: 'u64', max: ID_MAX },
    gid: { tag: 13, kind: 'u64', max: ID_MAX },
    policy: { tag: 14, kind: 'bytes' },
    filter: { tag: 15, kind: 'bytes' },
  } },
  FILE: { type: frameTypes.FILE, fields: {
    path: { tag: 1, kind: 'str' },
    kind: { tag: 2, kind: 'u64', max: 2 },
    mode: { tag: 3, kind: 'u64', max: 0o7777 },
    size: { tag: 4, kind: 'u64' },
    target: { tag: 5, kind: 'str' },
  } },
  START: { type: frameTypes.START, fields: {} },
  STOP: { type: frameTypes.STOP, fields: {} },
} as const satisfies Readonly<Record<string, MessageShape>>;

/** `kind` of a FILE. */
export const fileKinds = Object.freeze({ file: 0, folder: 1, link: 2 });

type ValueOf<F extends FieldShape> = {
  readonly u64: number;
  readonly nanos: bigint;
  readonly str: string;
  readonly bytes: Buffer;
}[F['kind']];

type FieldsOf<T extends Readonly<Record<string, FieldShape>>> = {
  readonly [K in keyof T]: T[K] extends { readonly repeat: true } ? readonly ValueOf<T[K]>[] : ValueOf<T[K]>;
};

export type MessageName = keyof typeof messages;

/** The fields of one message, as in `Message<'EXIT'>`. */
export type Message<N extends MessageName> = FieldsOf<(typeof messages)[N]['fields']>;

/** Any message with its name: the name decides the type of its fields. */
export type AnyMessage = { [N in MessageName]: { readonly name: N; readonly fields: Message<N> } }[MessageName];

type Value = number | bigint | string | Buffer;

// ---- encode --------------------------------------------------------------------------------------------------------

const FIELD_HEADER_BYTES = 6;

/** Payload of a message. Throws RangeError when a value breaks a rule: the caller's bug, never the peer's. */
export function encodeMessage<N extends MessageName>(name: N, message: Message<N>): Buffer {
  const parts: Buffer[] = [];
  let count = 0;
  const add = (field: string, shape: FieldShape, value: Value): void => {
    const bytes = encodeValue(`${name}.${field}`, shape, value);
    const header = Buffer.alloc(FIELD_HEADER_BYTES);
    header.writeUInt16LE(shape.tag, 0);
    header.writeUInt32LE(bytes.length, 2);
    parts.push(header, bytes);
    count++;
  };
  const values = message as Readonly<Record<string, Value | readonly Value[]>>;
  for (const [field, shape] of Object.entries<FieldShape>(messages[name].fields)) {
    const value = values[field];
    if (value === undefined) throw new RangeError(`encodeMessage: ${name}.${field} is missing`);
    if (isList(value)) for (const each of value) add(field, shape, each);
    else add(field, shape, value);
  }
  if (count > limits.fieldsMax) {
    throw new RangeError(`encodeMessage: ${name} has ${count} fields, the limit is ${limits.fieldsMax}`);
  }
  const payload = Buffer.concat(parts);
  if (payload.length > limits.framePayloadBytesMax) {
    throw new RangeError(
      `encodeMessage: ${name} has ${payload.length} bytes, the limit is ${limits.framePayloadBytesMax}`,
    );
  }
  return payload;
}

function isList(value: Value | readonly Value[]): value is readonly Value[] {
  return Array.isArray(value);
}

function encodeValue(field: string, shape: FieldShape, value: Value): Buffer {
  const bytes = valueBytes(shape, value);
  if (bytes === undefined) throw new RangeError(`encodeMessage: ${field} cannot have the value given`);
  if (bytes.length > limits.fieldBytesMax) {
    throw new RangeError(`encodeMessage: ${field} has ${bytes.length} bytes, the limit is ${limits.fieldBytesMax}`);
  }
  return bytes;
}

/** Undefined when the value is not one of its kind. */
function valueBytes({ kind, max = Number.MAX_SAFE_INTEGER, length }: FieldShape, value: Value): Buffer | undefined {
  switch (kind) {
    case 'u64':
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max) return undefined;
      return u64Bytes(BigInt(value));
    case 'nanos':
      return typeof value === 'bigint' && value >= 0n && value <= U64_MAX ? u64Bytes(value) : undefined;
    case 'str':
      // A lone surrogate has no UTF-8: it would arrive as another character.
      if (typeof value !== 'string' || value.includes('\0') || !value.isWellFormed()) return undefined;
      return Buffer.from(value);
    case 'bytes':
      return Buffer.isBuffer(value) && value.length === (length ?? value.length) ? value : undefined;
  }
}

function u64Bytes(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

// ---- decode --------------------------------------------------------------------------------------------------------

interface NamedField extends FieldShape {
  readonly field: string;
}

interface Reader {
  readonly name: MessageName;
  readonly fields: readonly NamedField[];
  readonly byTag: ReadonlyMap<number, NamedField>;
}

const readers: ReadonlyMap<number, Reader> = new Map(
  Object.entries<MessageShape>(messages).map(([name, { type, fields: shapes }]) => {
    const fields = Object.entries(shapes).map(([field, shape]) => ({ field, ...shape }));
    return [type, { name: name as MessageName, fields, byTag: new Map(fields.map((shape) => [shape.tag, shape])) }];
  }),
);

/**
 * Reads a control message. `bytes` fields are views into the payload. Throws ProtocolError, with the first violation in
 * the order of the bytes; missing fields are found last.
 */
export function decodeMessage(type: number, payload: Buffer): AnyMessage {
  const reader = readers.get(type);
  if (reader === undefined) throw new ProtocolError('type', `type ${type} is not a control message`);
  const { name, fields, byTag } = reader;
  // Keys are the table's names, never the peer's.
  const values: Record<string, Value | Value[]> = {};
  for (const { field, repeat } of fields) if (repeat === true) values[field] = [];
  let count = 0;
  for (let at = 0; at < payload.length; ) {
    if (++count > limits.fieldsMax) throw wrong('field-count', name, `has more than ${limits.fieldsMax} fields`);
    if (payload.length - at < FIELD_HEADER_BYTES) throw wrong('field-truncated', name, 'ends inside a field header');
    const tag = payload.readUInt16LE(at);
    const length = payload.readUInt32LE(at + 2);
    at += FIELD_HEADER_BYTES;
    const shape = byTag.get(tag);
    if (shape === undefined) throw wrong('field-unknown', name, `has a field with tag ${tag}`);
    const known = values[shape.field];
    if (known !== undefined && !Array.isArray(known)) throw wrong('field-duplicate', name, `has ${shape.field} twice`);
    if (length > limits.fieldBytesMax) {
      throw wrong('field-length', name, `has ${length} bytes in ${shape.field}, the limit is ${limits.fieldBytesMax}`);
    }
    if (length > payload.length - at) throw wrong('field-truncated', name, `ends inside ${shape.field}`);
    const value = readValue(name, shape, payload.subarray(at, at + length));
    at += length;
    if (Array.isArray(known)) known.push(value);
    else values[shape.field] = value;
  }
  for (const { field } of fields) {
    if (values[field] === undefined) throw wrong('field-missing', name, `has no ${field}`);
  }
  return { name, fields: values } as unknown as AnyMessage;
}

function readValue(name: MessageName, shape: NamedField, bytes: Buffer): Value {
  const { field, kind, max = Number.MAX_SAFE_INTEGER } = shape;
  switch (kind) {
    case 'u64': {
      const value = readU64(name, field, bytes);
      if (value > BigInt(max)) throw wrong('field-value', name, `has ${value} in ${field}, the most is ${max}`);
      return Number(value);
    }
    case 'nanos':
      return readU64(name, field, bytes);
    case 'str':
      if (bytes.includes(0)) throw wrong('field-nul', name, `has a NUL in ${field}`);
      if (!isUtf8(bytes)) throw wrong('field-utf8', name, `has text in ${field} that is not UTF-8`);
      return bytes.toString('utf8');
    case 'bytes':
      if (shape.length !== undefined && bytes.length !== shape.length) {
        throw wrong('field-width', name, `has ${bytes.length} bytes in ${field}, not ${shape.length}`);
      }
      return bytes;
  }
}

function readU64(name: MessageName, field: string, bytes: Buffer): bigint {
  if (bytes.length !== 8) throw wrong('field-width', name, `has ${bytes.length} bytes in ${field}, not 8`);
  return bytes.readBigUInt64LE();
}

function wrong(violation: Violation, name: MessageName, what: string): ProtocolError {
  return new ProtocolError(violation, `${name} ${what}`);
}
