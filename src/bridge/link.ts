/**
 * Frames over a transport: the only file of the bridge that touches a socket. It turns whatever can go wrong with bytes
 * into one failure: a violation, silence in the middle of a frame, a peer that does not read, a transport that ends.
 *
 * What it holds is bounded: one incomplete frame from the peer, and `writeQueueBytesMax` for it. Who has much to send
 * waits while `congested`; what is sent regardless (credits, a first message) counts against the queue.
 */
import type { Duplex } from 'node:stream';
import type { ErrorCode } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import type { Limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import { encodeFrame, FrameDecoder, ProtocolError } from './frame.ts';
import type { Frame, Side, Violation } from './frame.ts';

/** How an exchange went wrong. Text of the guest in `reason` is short and printable. */
export interface BridgeFailure {
  readonly code: ErrorCode;
  readonly reason: string;
  /** Present when the code is E_GUEST_PROTOCOL. */
  readonly violation?: Violation;
}

/** Those of core/limits.ts, or others in tests. */
export type Bounds<K extends keyof Limits> = { readonly [N in K]: number };

export type LinkBounds = Bounds<'frameMillisMax' | 'writeQueueBytesMax' | 'writeStallMillisMax'>;

export interface LinkOptions {
  readonly transport: Duplex;
  readonly clock: Clock;
  /** Whose end this is. */
  readonly side: Side;
  readonly bounds: LinkBounds;
  /** A whole frame of the peer. A ProtocolError thrown here is the peer's violation. */
  readonly onFrame: (frame: Frame) => void;
  /** No longer congested. */
  readonly onWritable?: () => void;
  /** At most once; the link has stopped. */
  readonly onFailure: (failure: BridgeFailure) => void;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #peer: Side;
  #decoder: FrameDecoder;
  #nonce = 0n;
  #sequence = 0;
  #congested = false;
  #stopped = false;
  #cancelStall = (): void => {};
  #cancelFrame: (() => void) | undefined;
  /** Frames decoded when the timer of the incomplete one was started. */
  #frameTimerSequence = 0;

  /** Reads from now on; `start` is apart so that the owner is complete when the first callback comes. */
  constructor(options: LinkOptions) {
    this.#options = options;
    this.#peer = options.side === 'host' ? 'guest' : 'host';
    this.#decoder = new FrameDecoder({ from: this.#peer, nonce: 0n });
  }

  start(): void {
    const { transport } = this.#options;
    // Never removed: an error of a transport that nobody uses any more must not end the process.
    transport.on('error', ignore);
    transport.on('error', this.#onError);
    transport.on('drain', this.#onDrain);
    transport.on('end', this.#onEnd);
    transport.on('close', this.#onEnd);
    transport.on('data', this.#onData);
    // A transport that somebody has paused does not flow again for a listener alone.
    transport.resume();
    if (transport.destroyed || transport.readableEnded) queueMicrotask(this.#onEnd);
  }

  /** Both directions count from 0 and carry this nonce from the next frame on. */
  restart(nonce: bigint): void {
    this.#nonce = nonce;
    this.#sequence = 0;
    this.#decoder = new FrameDecoder({ from: this.#peer, nonce });
  }

  get congested(): boolean {
    return this.#congested;
  }

  get stopped(): boolean {
    return this.#stopped;
  }

  send(type: number, stream: number, payload: Buffer): void {
    if (this.#stopped) return;
    const { transport, clock, bounds } = this.#options;
    const frame = encodeFrame({ type, sequence: this.#sequence++, stream, nonce: this.#nonce, payload });
    const queued = transport.writableLength + frame.length;
    if (queued > bounds.writeQueueBytesMax) {
      this.#fail({ code: 'E_GUEST_SILENT', reason: `the guest does not read: ${queued} bytes wait for it` });
      return;
    }
    if (transport.write(frame) || this.#congested) return;
    this.#congested = true;
    this.#cancelStall = clock.after(bounds.writeStallMillisMax, () => {
      const reason = `the guest has not read what waits for it within ${bounds.writeStallMillisMax} ms`;
      this.#fail({ code: 'E_GUEST_SILENT', reason });
    });
  }

  /** No callback after this; the transport is paused and stays open. Idempotent. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#cancelStall();
    this.#cancelFrame?.();
    const { transport } = this.#options;
    transport.off('error', this.#onError);
    transport.off('drain', this.#onDrain);
    transport.off('end', this.#onEnd);
    transport.off('close', this.#onEnd);
    transport.off('data', this.#onData);
    transport.pause();
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#stopped) return;
    try {
      for (const frame of this.#decoder.push(chunk)) {
        this.#options.onFrame(frame);
        if (this.#stopped) return;
      }
    } catch (thrown) {
      this.#fail(failureOf(thrown));
      return;
    }
    this.#watchFrame();
  };

  /** The timer belongs to one incomplete frame: more bytes of the same frame do not extend it. */
  #watchFrame(): void {
    const { midFrame, sequence } = this.#decoder;
    if (midFrame && this.#cancelFrame !== undefined && this.#frameTimerSequence === sequence) return;
    this.#cancelFrame?.();
    this.#cancelFrame = undefined;
    if (!midFrame) return;
    const millis = this.#options.bounds.frameMillisMax;
    this.#frameTimerSequence = sequence;
    this.#cancelFrame = this.#options.clock.after(millis, () => {
      this.#fail({ code: 'E_GUEST_SILENT', reason: `the guest began a frame and did not end it within ${millis} ms` });
    });
  }

  readonly #onDrain = (): void => {
    this.#cancelStall();
    this.#congested = false;
    this.#options.onWritable?.();
  };

  readonly #onEnd = (): void => {
    const where = this.#decoder.midFrame ? 'in the middle of a frame' : 'before the exchange was over';
    this.#fail({ code: 'E_GUEST_DIED', reason: `the guest's end of the bridge closed ${where}` });
  };

  readonly #onError = (error: Error): void => {
    const why = 'code' in error ? String(error.code) : error.message;
    this.#fail({ code: 'E_GUEST_DIED', reason: `the bridge broke: ${printableLine(why, 200)}` });
  };

  #fail(failure: BridgeFailure): void {
    if (this.#stopped) return;
    this.stop();
    this.#options.onFailure(failure);
  }
}

/** A violation is the guest's; anything else that is thrown while bytes are handled is a bug of the host. */
export function failureOf(thrown: unknown): BridgeFailure {
  if (thrown instanceof ProtocolError) {
    const { violation, message } = thrown;
    return { code: 'E_GUEST_PROTOCOL', reason: `${violation}: ${printableLine(message, 300)}`, violation };
  }
  const what = thrown instanceof Error ? thrown.message : String(thrown);
  return { code: 'E_INTERNAL', reason: `a bug of the host: ${printableLine(what, 300)}` };
}

function ignore(): void {}
