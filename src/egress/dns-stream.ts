/** DNS over TCP, whatever server the guest believes to talk to: messages with their length before them. */
import { limits } from '../core/limits.ts';
import type { GuestEnd, WorldEnd } from './contract.ts';

export class DnsStream implements WorldEnd {
  readonly #guest: GuestEnd;
  readonly #answer: (message: Buffer) => Buffer | undefined;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(guest: GuestEnd, answer: (message: Buffer) => Buffer | undefined) {
    this.#guest = guest;
    this.#answer = answer;
    guest.accept();
  }

  data(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    while (this.#bytes.length >= 2) {
      const length = this.#bytes.readUInt16BE(0);
      if (length > limits.dnsMessageBytesMax) return this.#guest.reset('gone');
      if (this.#bytes.length < 2 + length) break;
      const reply = this.#answer(this.#bytes.subarray(2, 2 + length));
      this.#bytes = this.#bytes.subarray(2 + length);
      if (reply === undefined || !this.#send(reply)) return this.#guest.reset('gone');
    }
    this.#guest.used(chunk.length);
  }

  /** False when the guest does not read its answers: nobody asks that much at once. */
  #send(reply: Buffer): boolean {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(reply.length);
    return this.#guest.write(Buffer.concat([length, reply]));
  }

  end(): void {
    this.#guest.end();
  }

  reset(): void {}

  writable(): void {}
}
