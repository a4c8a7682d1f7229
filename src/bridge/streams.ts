/**
 * What flows on one stream: payloads of END and CREDIT, and the two ends of a window. Both ends only count; who moves
 * the bytes is the session's business.
 *
 *   sender    Outflow   may send what the window holds, counts, ends once
 *   receiver  Inflow    refuses what was not granted, what is over the limit and what comes after END
 */
import { limits } from '../core/limits.ts';
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

export class Outflow {
  readonly #name: string;
  #window: number = limits.streamWindowBytes;
  #sentBytes = 0;

  constructor(name: string) {
    this.#name = name;
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
    if (bytes > limits.streamWindowBytes - this.#window) {
      throw new ProtocolError('credit', `CREDIT of ${bytes} bytes on ${this.#name} for bytes that were never sent`);
    }
    this.#window += bytes;
  }
}

export class Inflow {
  readonly name: string;
  readonly #bytesMax: number;
  #window: number = limits.streamWindowBytes;
  #bytes = 0;
  #end: End | undefined;

  /** `bytesMax`: the most that the sender may ever send. */
  constructor(name: string, bytesMax: number) {
    this.name = name;
    this.#bytesMax = bytesMax;
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
   * sender busy at the price of one CREDIT in two frames or less.
   */
  takeCredit(): number {
    const credit = limits.streamWindowBytes - this.#window;
    if (this.ended || credit < limits.streamWindowBytes / 2) return 0;
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
