/**
 * The bridge's frames (docs/FORMATS.md): bytes to frames and back, without I/O or clock.
 *
 * Every byte that reaches the decoder may have been written by an attacker. Nothing is allocated for a payload before
 * its header has passed every check, and at most one incomplete frame is held.
 *
 * Ownership: `encodeFrame` copies the payload. A decoded payload is a view into the chunk that was pushed, or a buffer
 * of its own when the frame was split; either way it stays valid, and whoever keeps it keeps the whole chunk in memory.
 */
import { limits } from '../core/limits.ts';

export const frameTypes = Object.freeze({
  HELLO: 0x01, READY: 0x02, ADOPTED: 0x03, PROOF: 0x04, EXIT: 0x05, FAULT: 0x06,
  DATA: 0x10, END: 0x11, CREDIT: 0x12,
  OPEN: 0x13, RESET: 0x14, ACCEPT: 0x15, QUERY: 0x16, ANSWER: 0x17,
  PREPARE: 0x21, ADOPT: 0x22, CONFIGURE: 0x23, FILE: 0x24, START: 0x25, STOP: 0x26,
});

/** Streams by sender: 1 to 3 belong to the guest, 4 and 5 to the host. */
export const streams = Object.freeze({ stdout: 1, stderr: 2, output: 3, stdin: 4, code: 5 });

/** Connections and DNS queries of the guest: it chooses the numbers, each one higher than all before. */
export const egressStreams = Object.freeze({ min: 16, max: 0x7fff_ffff });

/** Connections of the host to a server in the guest, numbered by the host in the same way. */
export const hostStreams = Object.freeze({ min: 0x8000_0000, max: 0x8000_ffff });

export type Side = 'guest' | 'host';

/** What exactly a frame or message did wrong; golden files and the C decoder use the same words. */
export type Violation =
  // frame, in the order of the checks
  | 'magic' | 'version' | 'type' | 'length' | 'sequence' | 'stream' | 'nonce'
  // message
  | 'field-truncated' | 'field-length' | 'field-count' | 'field-unknown' | 'field-duplicate' | 'field-missing'
  | 'field-width' | 'field-value' | 'field-nul' | 'field-utf8'
  // exchange
  | 'end-flag' | 'end-total' | 'after-end' | 'no-credit' | 'credit' | 'over-limit' | 'order' | 'protocol-version'
  // egress
  | 'open' | 'reset';

/** Thrown inside the bridge and caught there: the session turns it into its status. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly violation: Violation;

  constructor(violation: Violation, message: string) {
    super(message);
    this.violation = violation;
  }
}

export interface Frame {
  readonly type: number;
  /** Place among the frames of its direction and nonce, from 0. */
  readonly sequence: number;
  /** 0 for control messages. */
  readonly stream: number;
  /** 64 bits; 0 while a template is prepared. */
  readonly nonce: bigint;
  readonly payload: Buffer;
}

const MAGIC = 0x594d;
const VERSION = 1;

/** What a frame of a type may look like: who sends it, on which streams, with how many payload bytes. */
interface TypeRule {
  readonly from: Side | 'both';
  readonly stream: boolean;
  readonly lengthMin: number;
  readonly lengthMax: number;
}

function control(from: Side): TypeRule {
  return { from, stream: false, lengthMin: 0, lengthMax: limits.framePayloadBytesMax };
}

/** From the header of every DNS message to the most that EDNS may ask for here. */
const DNS_LENGTHS = { lengthMin: 12, lengthMax: limits.dnsMessageBytesMax };

const typeRules: ReadonlyMap<number, TypeRule> = new Map<number, TypeRule>([
  [frameTypes.HELLO, control('guest')],
  [frameTypes.READY, control('guest')],
  [frameTypes.ADOPTED, control('guest')],
  [frameTypes.PROOF, control('guest')],
  [frameTypes.EXIT, control('guest')],
  [frameTypes.FAULT, control('guest')],
  [frameTypes.PREPARE, control('host')],
  [frameTypes.ADOPT, control('host')],
  [frameTypes.CONFIGURE, control('host')],
  [frameTypes.FILE, control('host')],
  [frameTypes.START, control('host')],
  [frameTypes.STOP, control('host')],
  [frameTypes.DATA, { from: 'both', stream: true, lengthMin: 1, lengthMax: limits.framePayloadBytesMax }],
  [frameTypes.END, { from: 'both', stream: true, lengthMin: 9, lengthMax: 9 }],
  [frameTypes.CREDIT, { from: 'both', stream: true, lengthMin: 4, lengthMax: 4 }],
  [frameTypes.OPEN, { from: 'both', stream: true, lengthMin: 20, lengthMax: 20 }],
  [frameTypes.RESET, { from: 'both', stream: true, lengthMin: 1, lengthMax: 1 }],
  [frameTypes.ACCEPT, { from: 'both', stream: true, lengthMin: 0, lengthMax: 0 }],
  [frameTypes.QUERY, { from: 'guest', stream: true, ...DNS_LENGTHS }],
  [frameTypes.ANSWER, { from: 'host', stream: true, ...DNS_LENGTHS }],
]);

/** Who opens a connection numbers it in its own half; the other side accepts it there. */
function allowsConnection(type: number, owner: Side, from: Side): boolean {
  if (type === frameTypes.OPEN) return owner === from;
  if (type === frameTypes.ACCEPT) return owner !== from;
  return owner === 'guest' || (type !== frameTypes.QUERY && type !== frameTypes.ANSWER);
}

/** Who sends DATA and END on a stream; undefined when there is no such stream. */
function senderOf(stream: number): Side | undefined {
  if (stream >= streams.stdout && stream <= streams.output) return 'guest';
  if (stream === streams.stdin || stream === streams.code) return 'host';
  return undefined;
}

/** Throws RangeError when a field does not fit its place: the caller's bug, never the peer's. */
export function encodeFrame({ type, sequence, stream, nonce, payload }: Frame): Buffer {
  if (payload.length > limits.framePayloadBytesMax) {
    throw new RangeError(`encodeFrame: a payload of ${payload.length} bytes is over ${limits.framePayloadBytesMax}`);
  }
  const bytes = Buffer.allocUnsafe(limits.frameHeaderBytes + payload.length);
  bytes.writeUInt16LE(MAGIC, 0);
  bytes.writeUInt8(VERSION, 2);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt32LE(payload.length, 4);
  bytes.writeUInt32LE(sequence, 8);
  bytes.writeUInt32LE(stream, 12);
  bytes.writeBigUInt64LE(nonce, 16);
  payload.copy(bytes, limits.frameHeaderBytes);
  return bytes;
}

export interface FrameDecoderOptions {
  /** Whose frames these are: the other side's. */
  readonly from: Side;
  /** What every frame must carry. A decoder of the host's frames that starts at 0 takes a clone's from ADOPT. */
  readonly nonce: bigint;
}

export class FrameDecoder {
  readonly #from: Side;
  readonly #header = Buffer.alloc(limits.frameHeaderBytes);
  #nonce = 0n;
  /** The same nonce in halves: comparing them allocates nothing. */
  #nonceLow = 0;
  #nonceHigh = 0;
  #sequence = 0;
  /** Header bytes of the incomplete frame; all of them once `#payload` is set. */
  #headerFilled = 0;
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  #error: ProtocolError | undefined;

  constructor({ from, nonce }: FrameDecoderOptions) {
    this.#from = from;
    this.#expectNonce(nonce);
  }

  /** Bytes of a frame have come that is not complete yet. */
  get midFrame(): boolean {
    return this.#headerFilled > 0;
  }

  /** Whole frames so far under this nonce. */
  get sequence(): number {
    return this.#sequence;
  }

  /**
   * The frames that this chunk completes, in order. Throws ProtocolError at the first violation, and the same one again
   * for whatever is pushed after it. Take all frames before the next push: the rest of an abandoned chunk is lost.
   */
  *push(chunk: Buffer): Generator<Frame, void, undefined> {
    if (this.#error !== undefined) throw this.#error;
    try {
      let at = 0;
      while (at < chunk.length) {
        const whole = this.#headerFilled === 0 ? this.#wholeFrame(chunk, at) : undefined;
        if (whole !== undefined) {
          at += limits.frameHeaderBytes + whole.payload.length;
          yield whole;
          continue;
        }
        at = this.#take(chunk, at);
        const payload = this.#payload;
        if (payload === undefined || this.#payloadFilled < payload.length) continue;
        const frame = this.#finish(this.#header, 0, payload);
        this.#payload = undefined;
        this.#payloadFilled = 0;
        this.#headerFilled = 0;
        yield frame;
      }
    } catch (thrown) {
      if (thrown instanceof ProtocolError) this.#error = thrown;
      throw thrown;
    }
  }

  /** The frame that starts here when all of it is in the chunk: the usual case, and nothing is copied. */
  #wholeFrame(chunk: Buffer, at: number): Frame | undefined {
    const start = at + limits.frameHeaderBytes;
    if (start > chunk.length) return undefined;
    const end = start + this.#checkHeader(chunk, at);
    return end > chunk.length ? undefined : this.#finish(chunk, at, chunk.subarray(start, end));
  }

  /** Moves bytes into the incomplete frame; returns where the chunk goes on. */
  #take(chunk: Buffer, at: number): number {
    if (this.#payload === undefined) {
      const copied = chunk.copy(this.#header, this.#headerFilled, at);
      this.#headerFilled += copied;
      if (this.#headerFilled === limits.frameHeaderBytes) {
        this.#payload = Buffer.allocUnsafeSlow(this.#checkHeader(this.#header, 0));
      }
      return at + copied;
    }
    const copied = chunk.copy(this.#payload, this.#payloadFilled, at);
    this.#payloadFilled += copied;
    return at + copied;
  }

  /** Every check that a header allows, in the order of FORMATS.md; returns the payload's length. */
  #checkHeader(bytes: Buffer, at: number): number {
    if (bytes.readUInt16LE(at) !== MAGIC) {
      throw new ProtocolError('magic', `a frame starts with 0x${bytes.toString('hex', at, at + 2)}, not with "MY"`);
    }
    const version = bytes.readUInt8(at + 2);
    if (version !== VERSION) throw new ProtocolError('version', `frame of version ${version}, expected ${VERSION}`);
    const type = bytes.readUInt8(at + 3);
    const rule = typeRules.get(type);
    if (rule === undefined || (rule.from !== 'both' && rule.from !== this.#from)) {
      throw new ProtocolError('type', `frame of type 0x${hex(type)} from the ${this.#from}`);
    }
    const length = bytes.readUInt32LE(at + 4);
    if (length < rule.lengthMin || length > rule.lengthMax) {
      const allowed = `${rule.lengthMin} to ${rule.lengthMax}`;
      throw new ProtocolError('length', `frame of type 0x${hex(type)} with ${length} bytes, allowed ${allowed}`);
    }
    if (type === frameTypes.ADOPT && this.#nonce === 0n) this.#adoptNonce(bytes.readBigUInt64LE(at + 16));
    const sequence = bytes.readUInt32LE(at + 8);
    if (sequence !== this.#sequence) {
      throw new ProtocolError('sequence', `frame with sequence number ${sequence}, expected ${this.#sequence}`);
    }
    const stream = bytes.readUInt32LE(at + 12);
    if (!this.#allowsStream(rule, type, stream)) {
      throw new ProtocolError('stream', `frame of type 0x${hex(type)} on stream ${stream}`);
    }
    if (bytes.readUInt32LE(at + 16) !== this.#nonceLow || bytes.readUInt32LE(at + 20) !== this.#nonceHigh) {
      // The values stay out of the message: it ends up in logs, and the nonce is this clone's secret.
      throw new ProtocolError('nonce', 'frame with the nonce of another clone');
    }
    return length;
  }

  #allowsStream(rule: TypeRule, type: number, stream: number): boolean {
    if (!rule.stream) return stream === 0;
    if (stream >= egressStreams.min && stream <= egressStreams.max) return allowsConnection(type, 'guest', this.#from);
    if (stream >= hostStreams.min && stream <= hostStreams.max) return allowsConnection(type, 'host', this.#from);
    if (type >= frameTypes.OPEN) return false;
    const sender = senderOf(stream);
    if (sender === undefined) return false;
    return (sender === this.#from) === (type !== frameTypes.CREDIT);
  }

  #expectNonce(nonce: bigint): void {
    this.#nonce = nonce;
    this.#nonceLow = Number(nonce & 0xffff_ffffn);
    this.#nonceHigh = Number(nonce >> 32n);
  }

  /** The host names the clone's nonce in the header of ADOPT, and both directions count from 0 again. */
  #adoptNonce(nonce: bigint): void {
    if (nonce === 0n) throw new ProtocolError('nonce', 'ADOPT without a nonce');
    this.#expectNonce(nonce);
    this.#sequence = 0;
  }

  #finish(header: Buffer, at: number, payload: Buffer): Frame {
    const sequence = this.#sequence++;
    const type = header.readUInt8(at + 3);
    const stream = header.readUInt32LE(at + 12);
    return { type, sequence, stream, nonce: this.#nonce, payload };
  }
}

function hex(type: number): string {
  return type.toString(16).padStart(2, '0');
}
