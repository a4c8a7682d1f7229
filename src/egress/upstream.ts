/**
 * One connection between the guest's end and a socket: bytes, half-closes and resets of either side reach the other as
 * they come. What waits for a slow side is bounded by the guest's window in one direction and by one chunk of the
 * socket in the other, however small the pieces are that the guest sends.
 */
import type { Socket } from 'node:net';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { GuestEnd, WorldEnd } from './contract.ts';

export interface UpstreamOptions {
  readonly clock: Clock;
  /** Bytes went; false: that was too many. */
  readonly sent: (bytes: number) => boolean;
  readonly received: (bytes: number) => boolean;
  /** Sees bytes for the guest before it gets them. */
  readonly watch?: (chunk: Buffer) => void;
  /** Called once. */
  readonly over: () => void;
}

export class Upstream implements WorldEnd {
  readonly #guest: GuestEnd;
  readonly #options: UpstreamOptions;
  #socket: Socket | undefined;
  #quiet = true;
  #over = false;
  #writing = false;
  #guestEnded = false;
  #backlog: Buffer | undefined;
  #backlogBytes = 0;

  constructor(guest: GuestEnd, options: UpstreamOptions) {
    this.#guest = guest;
    this.#options = options;
  }

  get over(): boolean {
    return this.#over;
  }

  connected(socket: Socket): void {
    if (this.#over) return void socket.destroy();
    this.#socket = socket;
    this.#guest.accept();
    socket.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      if (!this.#options.received(chunk.length)) return this.#refuse();
      this.#quiet = false;
      this.#options.watch?.(chunk);
      if (this.#over) return;
      if (!this.#guest.write(chunk)) socket.pause();
    });
    socket.on('end', () => {
      this.#watchHalf(socket);
      if (!this.#over) this.#guest.end();
    });
    socket.on('error', () => this.#break());
    socket.on('timeout', () => this.#break());
    socket.on('close', () => this.#finish());
  }

  /**
   * Gives the socket to somebody else, who talks for both from now on; undefined when bytes went through already, or
   * when it is over.
   */
  release(): Socket | undefined {
    const socket = this.#socket;
    if (socket === undefined || this.#over || !this.#quiet || this.#writing || socket.destroyed) return undefined;
    this.#over = true;
    for (const event of ['data', 'end', 'timeout', 'close']) socket.removeAllListeners(event);
    socket.pause();
    return socket;
  }

  /** Neither side goes on. */
  cut(): void {
    const socket = this.#socket;
    this.#finish();
    socket?.resetAndDestroy();
  }

  // ---- from the guest -----------------------------------------------------------------------------------------------

  data(chunk: Buffer): void {
    if (this.#over) return;
    if (!this.#options.sent(chunk.length)) return this.#refuse();
    if (!this.#writing) return this.#write(chunk);
    // Single bytes must not become single writes: each would cost hundreds of bytes.
    this.#backlog ??= Buffer.allocUnsafeSlow(limits.egressWindowBytes);
    this.#backlogBytes += chunk.copy(this.#backlog, this.#backlogBytes);
  }

  end(): void {
    this.#guestEnded = true;
    if (this.#socket === undefined || this.#writing) return;
    this.#watchHalf(this.#socket);
    this.#socket.end();
  }

  /** After an orderly end, what was written still leaves the host; otherwise the world sees a reset as well. */
  reset(): void {
    if (this.#over) return;
    const socket = this.#socket;
    this.#finish();
    if (socket === undefined) return;
    if (!this.#guestEnded) return void socket.resetAndDestroy();
    socket.destroySoon();
    const cancel = this.#options.clock.after(limits.egressLingerMillis, () => socket.destroy());
    socket.once('close', cancel);
  }

  writable(): void {
    this.#socket?.resume();
  }

  // ---- to the world -------------------------------------------------------------------------------------------------

  #write(bytes: Buffer): void {
    this.#writing = true;
    this.#socket?.write(bytes, (error) => {
      this.#writing = false;
      if (error !== undefined && error !== null) return;
      this.#guest.used(bytes.length);
      if (this.#backlogBytes > 0) {
        const waiting = this.#backlog?.subarray(0, this.#backlogBytes) ?? Buffer.alloc(0);
        this.#backlog = undefined;
        this.#backlogBytes = 0;
        this.#write(waiting);
      } else if (this.#guestEnded) this.end();
    });
  }

  #watchHalf(socket: Socket): void {
    socket.setTimeout(limits.halfClosedMillisMax);
  }

  #refuse(): void {
    const socket = this.#socket;
    if (this.#over) return;
    this.#finish();
    this.#guest.reset('limit');
    socket?.resetAndDestroy();
  }

  #break(): void {
    const socket = this.#socket;
    if (!this.#over) {
      this.#finish();
      this.#guest.reset('gone');
    }
    socket?.destroy();
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#backlog = undefined;
    this.#options.over();
  }
}
