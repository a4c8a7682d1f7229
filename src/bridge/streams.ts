/**
 * What flows on one stream: payloads of END and CREDIT, and the two ends of a window. Both ends only count; who moves
 * the bytes is the session's business.
 *
 *   sender    Outflow   may send what the window holds, counts, ends once
 *   receiver  Inflow    refuses what was not granted, what is over the limit and what comes after END
 */
import { limits } from '../core/limits.ts';
import type { Refusal, Target } from '../egress/contract.ts';
import { ProtocolError } from './frame.ts';

export interface End {
  /** Bytes sent on the stream. */
  readonly totalBytes: number;
  /** The sender had more and dropped the rest at its limit. */
  readonly truncated: boolean;
}

export function encodeEnd({ totalBytes, truncated }: End): Buffer {
  const payload = Buffer.alloc(9);
  payload.writeBigUInt64LE(BigInt(totalBytes), 0);
  payload.writeUInt8(truncated ? 1 : 0, 8);
  return payload;
}

/** A total that is no safe integer comes back rounded: it cannot equal what was received. Throws ProtocolError. */
export function decodeEnd(payload: Buffer): End {
  const flag = payload.readUInt8(8);
  if (flag > 1) throw new ProtocolError('end-flag', `END with the truncation flag ${flag}`);
  return { totalBytes: Number(payload.readBigUInt64LE(0)), truncated: flag === 1 };
}

export function encodeCredit(bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(bytes);
  return payload;
}

export function decodeCredit(payload: Buffer): number {
  return payload.readUInt32LE(0);
}

/** Payload of OPEN: `u8 family` (4), `u8` 0, `u16 port`, address in network order with 0 up to 16 bytes. */
export function encodeOpen({ address, port }: Target): Buffer {
  const payload = Buffer.alloc(20);
  payload.writeUInt8(4, 0);
  payload.writeUInt16LE(port, 2);
  for (const [index, byte] of address.split('.').entries()) payload.writeUInt8(Number(byte), 4 + index);
  return payload;
}

/** Throws ProtocolError. */
export function decodeOpen(payload: Buffer): Target {
  const port = payload.readUInt16LE(2);
  const padded = payload.readUInt8(1) === 0 && payload.subarray(8).every((byte) => byte === 0);
  if (payload.readUInt8(0) !== 4 || port === 0 || !padded) {
    throw new ProtocolError('open', 'OPEN names no address of IPv4 and port');
  }
  return { address: payload.subarray(4, 8).join('.'), port };
}

const refusals: readonly Refusal[] = ['gone', 'denied', 'unreachable', 'timeout', 'limit'];

export function encodeReset(reason: Refusal): Buffer {
  return Buffer.from([refusals.indexOf(reason)]);
}

/** Throws ProtocolError. */
export function decodeReset(payload: Buffer): Refusal {
  const reason = refusals[payload.readUInt8(0)];
  if (reason === undefined) throw new ProtocolError('reset', `RESET for the reason ${payload.readUInt8(0)}`);
  return reason;
}

export class Outflow {
  readonly #name: string;
  readonly #windowMax: number;
  #window: number;
  #sentBytes = 0;

  constructor(name: string, windowBytes: number = limits.streamWindowBytes) {
    this.#name = name;
    this.#windowMax = windowBytes;
    this.#window = windowBytes;
  }

  /** Bytes that may be sent now. */
  get window(): number {
    return this.#window;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** Throws RangeError beyond the window: the caller's bug. */
  sent(bytes: number): void {
    if (bytes > this.#window) throw new RangeError(`${bytes} bytes on ${this.#name} with a window of ${this.#window}`);
    this.#window -= bytes;
    this.#sentBytes += bytes;
  }

  /** CREDIT has come: only what was sent can have been consumed. Throws ProtocolError. */
  grant(bytes: number): void {
    if (bytes === 0) throw new ProtocolError('credit', `CREDIT of nothing on ${this.#name}`);
    if (bytes > this.#windowMax - this.#window) {
      throw new ProtocolError('credit', `CREDIT of ${bytes} bytes on ${this.#name} for bytes that were never sent`);
    }
    this.#window += bytes;
  }
}

export class Inflow {
  readonly name: string;
  readonly #bytesMax: number;
  readonly #windowMax: number;
  #window: number;
  #bytes = 0;
  #end: End | undefined;

  /** `bytesMax`: the most that the sender may ever send. */
  constructor(name: string, bytesMax: number, windowBytes: number = limits.streamWindowBytes) {
    this.name = name;
    this.#bytesMax = bytesMax;
    this.#windowMax = windowBytes;
    this.#window = windowBytes;
  }

  /** Bytes that the sender may still send. */
  get window(): number {
    return this.#window;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  get truncated(): boolean {
    return this.#end?.truncated ?? false;
  }

  /** DATA has come. Throws ProtocolError when it may not. */
  receive(length: number): void {
    if (this.ended) throw new ProtocolError('after-end', `DATA on ${this.name} after its END`);
    if (length > this.#window) {
      throw new ProtocolError('no-credit', `DATA of ${length} bytes on ${this.name} with a window of ${this.#window}`);
    }
    if (this.#bytes + length > this.#bytesMax) {
      throw new ProtocolError('over-limit', `${this.name} is over its limit of ${this.#bytesMax} bytes`);
    }
    this.#window -= length;
    this.#bytes += length;
  }

  /**
   * The credit to grant now for what has been received and used, 0 for none. Granting half a window at a time keeps the
   * sender busy at the price of one CREDIT in two frames or less. `held`: bytes received that are not used yet.
   */
  takeCredit(held = 0): number {
    const credit = this.#windowMax - this.#window - held;
    if (this.ended || credit < this.#windowMax / 2) return 0;
    this.#window += credit;
    return credit;
  }

  /** END has come. Throws ProtocolError when it is the second one or its total is wrong. */
  finish(end: End): void {
    if (this.ended) throw new ProtocolError('after-end', `END on ${this.name} for the second time`);
    if (end.totalBytes !== this.#bytes) {
      throw new ProtocolError('end-total', `END on ${this.name} after ${this.#bytes} bytes claims ${end.totalBytes}`);
    }
    this.#end = end;
  }
}
