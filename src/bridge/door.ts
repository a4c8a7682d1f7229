/**
 * The host's end of a connection to a server in the guest, as a stream that any client can use. What a client has not
 * read yet is bounded by the guest's window, since only what it has read gives the guest more.
 */
import { Duplex } from 'node:stream';
import { limits } from '../core/limits.ts';
import type { GuestEnd, WorldEnd } from '../egress/contract.ts';

export class Door extends Duplex {
  /** True when somebody in the guest listens, false when that will not happen any more. */
  readonly isOpen: Promise<boolean>;
  /** For the bridge. */
  readonly world: WorldEnd;
  readonly #guest: GuestEnd;
  readonly #opening = Promise.withResolvers<boolean>();
  #opened = false;
  #received = 0;
  #told = 0;
  /** Goes on when the connection is open, or the guest's window. */
  #waiting: (() => void) | undefined;

  constructor(guest: GuestEnd) {
    super({ allowHalfOpen: true, readableHighWaterMark: limits.egressWindowBytes });
    this.#guest = guest;
    this.isOpen = this.#opening.promise;
    this.world = {
      data: (chunk) => this.#data(chunk),
      end: () => void this.push(null),
      reset: () => void this.destroy(),
      writable: () => this.#goOn(),
    };
  }

  /** The guest has accepted. */
  opened(): void {
    this.#opened = true;
    this.#opening.resolve(true);
    this.#goOn();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const send = (): void => {
      if (this.#guest.write(chunk)) done();
      else this.#waiting = done;
    };
    if (this.#opened) send();
    else this.#waiting = send;
  }

  override _final(done: () => void): void {
    if (this.#opened) this.#guest.end();
    done();
  }

  override _read(): void {}

  /** However it is read, in the end it is by this; `_read` is called before anything has left the buffer. */
  override read(size?: number): unknown {
    const chunk: unknown = super.read(size);
    this.#tell();
    return chunk;
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#opening.resolve(false);
    this.#guest.reset('gone');
    done(error);
  }

  #data(chunk: Buffer): void {
    this.#received += chunk.length;
    this.push(chunk);
    this.#tell();
  }

  #goOn(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }

  /** What has left this buffer is used. */
  #tell(): void {
    const used = this.#received - this.readableLength - this.#told;
    if (used <= 0) return;
    this.#told += used;
    this.#guest.used(used);
  }
}
