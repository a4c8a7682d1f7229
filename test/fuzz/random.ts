/** Randomness that a seed repeats exactly, and ways to damage bytes with it. */

/** xorshift32: small, fast, and good enough to choose damage. */
export class FuzzRandom {
  #state: number;

  constructor(seed: number) {
    // Neighbouring seeds must not begin alike, and 0 would stay 0.
    this.#state = (Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) ^ (seed >>> 13)) | 0 || 1;
    for (let i = 0; i < 4; i++) this.below(2);
  }

  /** 0 to `limit - 1`. */
  below(limit: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % limit;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    const chosen = list[this.below(list.length)];
    if (chosen === undefined) throw new Error('pick from an empty list');
    return chosen;
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.below(256);
    return bytes;
  }
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 32_769, 65_536, 65_537];

/** The same bytes with one to `times` pieces of damage. */
export function mutate(random: FuzzRandom, input: Buffer, times: number): Buffer {
  let bytes = Buffer.from(input);
  for (let left = 1 + random.below(times); left > 0; left--) {
    const at = random.below(bytes.length + 1);
    switch (random.below(6)) {
      case 0:
        if (at < bytes.length) bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << random.below(8)), at);
        break;
      case 1:
        if (at < bytes.length) bytes.writeUInt8(random.below(256), at);
        break;
      case 2:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(random.pick(INTERESTING), at);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), random.bytes(random.below(9)), bytes.subarray(at)]);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random.below(9))]);
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(bytes.length + 1))]);
    }
  }
  return bytes;
}
