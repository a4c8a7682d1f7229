/** The last bytes of a stream, in a buffer of twice that size: cheap also for a guest that sends single bytes. */
export class Tail {
  readonly #bytesMax: number;
  #buffer = Buffer.alloc(0);
  #length = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(Math.max(0, this.#length - this.#bytesMax), this.#length);
  }

  push(chunk: Buffer): void {
    // Many streams stay empty.
    if (this.#buffer.length === 0) this.#buffer = Buffer.alloc(2 * this.#bytesMax);
    const last = chunk.subarray(-this.#bytesMax);
    if (this.#length + last.length > this.#buffer.length) this.#length = this.bytes.copy(this.#buffer);
    this.#length += last.copy(this.#buffer, this.#length);
  }
}
