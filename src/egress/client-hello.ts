/**
 * The first message of TLS, read without answering it: whom the client asks for, and how it presents itself. Pure,
 * bounded by `clientHelloBytesMax`, the same for any way in which records and segments cut the message. What is not
 * exactly a ClientHello is malformed: a broker that guesses what a server will make of it has lost.
 */
import { createHash } from 'node:crypto';
import { limits } from '../core/limits.ts';

export interface ClientHello {
  /** As it was sent; undefined when there is none. */
  readonly serverName: string | undefined;
  /** Protocols that the client offers, as in `h2`. */
  readonly alpn: readonly string[];
  /** It names, or pretends to name, another server that nobody can read. */
  readonly hasEch: boolean;
  readonly ja4: string;
}

export type HelloReading =
  | { readonly kind: 'incomplete' }
  | { readonly kind: 'malformed'; readonly because: string }
  | { readonly kind: 'hello'; readonly hello: ClientHello; /** With its records' headers. */ readonly length: number };

const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const RECORD_BYTES_MAX = 16_384;
const extensions = { serverName: 0, signatures: 13, alpn: 16, versions: 43, ech: 0xfe0d } as const;

class Malformed extends Error {}

/** `bytes`: everything from the first byte of the first record. Never throws. */
export function readClientHello(bytes: Buffer): HelloReading {
  try {
    const found = messageOf(bytes);
    if (found === undefined) return { kind: 'incomplete' };
    return { kind: 'hello', hello: helloOf(new Cursor(found.body)), length: found.length };
  } catch (thrown) {
    if (thrown instanceof Malformed) return { kind: 'malformed', because: thrown.message };
    throw thrown;
  }
}

/** Puts together what records have cut. Undefined while there is more to come. */
function messageOf(bytes: Buffer): { readonly body: Buffer; readonly length: number } | undefined {
  const parts: Buffer[] = [];
  let have = 0;
  for (let at = 0; ; ) {
    if (at > limits.clientHelloBytesMax) throw new Malformed('the ClientHello is too long');
    if (bytes[at] !== undefined && bytes[at] !== HANDSHAKE) throw new Malformed('no ClientHello');
    if (bytes.length - at < 5) return undefined;
    const length = bytes.readUInt16BE(at + 3);
    if (bytes[at + 1] !== 3) throw new Malformed('no version of TLS');
    if (length === 0 || length > RECORD_BYTES_MAX) throw new Malformed(`a record of ${length} bytes`);
    const part = bytes.subarray(at + 5, at + 5 + length);
    parts.push(part);
    have += part.length;
    at += 5 + length;
    const message = have >= 4 ? Buffer.concat(parts) : undefined;
    if (message !== undefined) {
      const wanted = 4 + message.readUIntBE(1, 3);
      if (message[0] !== CLIENT_HELLO) throw new Malformed('the first message is no ClientHello');
      if (wanted > limits.clientHelloBytesMax) throw new Malformed('the ClientHello is too long');
      if (have > wanted) throw new Malformed('something follows the ClientHello in its record');
      if (have === wanted) return part.length < length ? undefined : { body: message.subarray(4), length: at };
    }
    if (part.length < length) return undefined;
  }
}

function helloOf(body: Cursor): ClientHello {
  const legacyVersion = body.u16();
  body.take(32);
  body.list(1, 'session id');
  const ciphers = words(body.list(2, 'ciphers'));
  body.list(1, 'compression');
  const found = new Map<number, Buffer>();
  const order: number[] = [];
  if (body.left > 0) {
    const all = new Cursor(body.list(2, 'extensions'));
    while (all.left > 0) {
      const type = all.u16();
      if (found.has(type)) throw new Malformed(`extension ${type} twice`);
      found.set(type, all.list(2, `extension ${type}`));
      order.push(type);
    }
  }
  if (body.left > 0) throw new Malformed('bytes after the extensions');
  const alpn = protocolsOf(found.get(extensions.alpn));
  const serverName = nameOf(found.get(extensions.serverName));
  const versions = found.get(extensions.versions);
  const offered = versions === undefined ? [legacyVersion] : words(new Cursor(versions).only(1, 'versions'));
  const signatures = found.get(extensions.signatures);
  const fingerprint = {
    versions: offered, ciphers, extensions: order, alpn, hasName: serverName !== undefined,
    signatures: signatures === undefined ? [] : words(new Cursor(signatures).only(2, 'signatures')),
  };
  return { serverName, alpn, hasEch: found.has(extensions.ech), ja4: ja4Of(fingerprint) };
}

function nameOf(extension: Buffer | undefined): string | undefined {
  if (extension === undefined) return undefined;
  const list = new Cursor(new Cursor(extension).only(2, 'server names'));
  if (list.u8() !== 0) throw new Malformed('a server name that is no host name');
  const name = list.list(2, 'server name');
  if (list.left > 0) throw new Malformed('more than one server name');
  if (name.length === 0) throw new Malformed('an empty server name');
  return name.toString('latin1');
}

function protocolsOf(extension: Buffer | undefined): readonly string[] {
  if (extension === undefined) return [];
  const list = new Cursor(new Cursor(extension).only(2, 'protocols'));
  const names: string[] = [];
  while (list.left > 0) {
    const name = list.list(1, 'protocol');
    if (name.length === 0) throw new Malformed('an empty protocol');
    names.push(name.toString('latin1'));
  }
  return names;
}

function words(bytes: Buffer): number[] {
  if (bytes.length % 2 !== 0) throw new Malformed('half a word in a list');
  return Array.from({ length: bytes.length / 2 }, (_, index) => bytes.readUInt16BE(2 * index));
}

class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(length: number, what = 'the message'): Buffer {
    if (length > this.left) throw new Malformed(`${what} is cut off`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  u8(): number {
    return this.take(1).readUInt8();
  }

  u16(): number {
    return this.take(2).readUInt16BE();
  }

  /** Bytes with their length before them, in `width` bytes. */
  list(width: 1 | 2, what: string): Buffer {
    return this.take(width === 1 ? this.u8() : this.u16(), what);
  }

  /** The same, and nothing after it. */
  only(width: 1 | 2, what: string): Buffer {
    const bytes = this.list(width, what);
    if (this.left > 0) throw new Malformed(`bytes after ${what}`);
    return bytes;
  }
}

// ---- fingerprint ----------------------------------------------------------------------------------------------------

export interface Fingerprint {
  readonly versions: readonly number[];
  readonly ciphers: readonly number[];
  readonly extensions: readonly number[];
  readonly signatures: readonly number[];
  readonly alpn: readonly string[];
  readonly hasName: boolean;
}

const VERSIONS: ReadonlyMap<number, string> = new Map([
  [0x0304, '13'], [0x0303, '12'], [0x0302, '11'], [0x0301, '10'], [0x0300, 's3'],
]);

/** JA4 of FoxIO, of TLS over TCP: the same program has the same one, whatever the order of its extensions. */
export function ja4Of({ versions, ciphers, extensions: types, signatures, alpn, hasName }: Fingerprint): string {
  const kept = (list: readonly number[]): number[] => list.filter((value) => !isGrease(value));
  const version = VERSIONS.get(Math.max(...kept(versions), 0)) ?? '00';
  const counted = (list: readonly number[]): string => String(Math.min(kept(list).length, 99)).padStart(2, '0');
  const head = `t${version}${hasName ? 'd' : 'i'}${counted(ciphers)}${counted(types)}${protocolMark(alpn[0])}`;
  const rest = kept(types).filter((type) => type !== extensions.serverName && type !== extensions.alpn);
  const signed = kept(signatures);
  const tail = signed.length === 0 ? '' : `_${hexList(signed)}`;
  return `${head}_${shortHash(hexList(sorted(kept(ciphers))))}_${shortHash(`${hexList(sorted(rest))}${tail}`)}`;
}

/** Values that clients make up so that servers get used to unknown ones (RFC 8701). */
function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff);
}

function protocolMark(first: string | undefined): string {
  if (first === undefined) return '00';
  const ends = [first.slice(0, 1), first.slice(-1)];
  if (ends.every((each) => /^[0-9A-Za-z]$/.test(each))) return ends.join('');
  const hex = Buffer.from(first, 'latin1').toString('hex');
  return `${hex.slice(0, 1)}${hex.slice(-1)}`;
}

function hexList(values: readonly number[]): string {
  return values.map((value) => value.toString(16).padStart(4, '0')).join(',');
}

function sorted(values: readonly number[]): number[] {
  return values.toSorted((a, b) => a - b);
}

function shortHash(text: string): string {
  return text === '' ? '000000000000' : createHash('sha256').update(text).digest('hex').slice(0, 12);
}
