/** A guest's connection as a stream of Node's: what its HTTP and TLS are made to work on. */
import { Duplex } from 'node:stream';
import type { GuestEnd, WorldEnd } from './contract.ts';

export interface GuestStreamOptions {
  /** Bytes of the guest, or for it; false: that was too many. */
  readonly sent: (bytes: number) => boolean;
  readonly received: (bytes: number) => boolean;
  /** Called once. */
  readonly over: () => void;
}

export class GuestStream extends Duplex {
  /** Where the bridge's calls go. */
  readonly world: WorldEnd;
  readonly #guest: GuestEnd;
  readonly #options: GuestStreamOptions;
  #reset = false;
  #unused = 0;
  #written: (() => void) | undefined;

  constructor(guest: GuestEnd, options: GuestStreamOptions) {
    super({ allowHalfOpen: true });
    this.#guest = guest;
    this.#options = options;
    this.world = {
      data: (chunk) => this.#take(chunk),
      end: () => void (this.destroyed || this.push(null)),
      reset: () => {
        this.#reset = true;
        this.destroy();
      },
      writable: () => {
        const written = this.#written;
        this.#written = undefined;
        written?.();
      },
    };
  }

  /** Node's HTTP calls this of every socket. A run ends by its own clock. */
  setTimeout(): this {
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  /** As net.Socket has it, and Node's HTTP looks for it: over as soon as everything is written. */
  destroySoon(): void {
    if (this.writableFinished) return void this.destroy();
    this.once('finish', () => this.destroy());
    this.end();
  }

  #take(chunk: Buffer): void {
    if (this.#reset) return;
    // An answered guest may go on sending until it has read the answer: nobody listens, and nothing piles up.
    if (this.destroyed) return this.#guest.used(chunk.length);
    if (!this.#options.sent(chunk.length)) return this.#refuse();
    this.#unused += chunk.length;
    if (this.push(chunk)) this.#use();
  }

  #use(): void {
    const bytes = this.#unused;
    this.#unused = 0;
    if (bytes > 0 && !this.#reset) this.#guest.used(bytes);
  }

  #refuse(): void {
    if (!this.#reset) this.#guest.reset('limit');
    this.#reset = true;
    this.destroy();
  }

  override _read(): void {
    this.#use();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#reset) return done();
    if (!this.#options.received(chunk.length)) {
      this.#refuse();
      return done();
    }
    if (this.#guest.write(chunk)) done();
    else this.#written = done;
  }

  override _final(done: () => void): void {
    if (!this.#reset) this.#guest.end();
    done();
  }

  /** What was written to its end still arrives: a reset would take it away from a guest that reads slowly. */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.writableFinished) this.#use();
    else if (!this.#reset) {
      this.#reset = true;
      this.#guest.reset('gone');
    }
    this.#options.over();
    done(error);
  }
}
