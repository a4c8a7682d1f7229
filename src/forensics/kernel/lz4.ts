/** LZ4 in its legacy frame, as Linux packs its kernels: blocks of at most 8 MiB, each with its length. Pure. */

const BLOCK_BYTES_MAX = 8 * 1024 * 1024;

/** `frame`: after the magic. Throws RangeError when it is damaged or has more than `bytesMax` bytes. */
export function unpackLz4(frame: Buffer, bytesMax: number): Buffer {
  const blocks: Buffer[] = [];
  let total = 0;
  let at = 0;
  while (at + 4 <= frame.length) {
    const length = frame.readUInt32LE(at);
    // What stands behind the last block is the length of the whole, and no block can have it.
    if (length === 0 || at + 4 + length > frame.length) break;
    const block = unpackBlock(frame.subarray(at + 4, at + 4 + length));
    total += block.length;
    if (total > bytesMax) throw new RangeError(`more than ${bytesMax} bytes`);
    blocks.push(block);
    at += 4 + length;
  }
  return Buffer.concat(blocks);
}

function unpackBlock(block: Buffer): Buffer {
  const out = Buffer.alloc(BLOCK_BYTES_MAX);
  let [from, to] = [0, 0];
  const extended = (first: number): number => {
    let length = first;
    if (first !== 15) return length;
    for (let more = 255; more === 255;) {
      more = block.readUInt8(from++);
      length += more;
    }
    return length;
  };
  while (from < block.length) {
    const token = block.readUInt8(from++);
    const literals = extended(token >>> 4);
    if (from + literals > block.length || to + literals > out.length) throw new RangeError('a damaged block');
    block.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from >= block.length) break;
    const distance = block.readUInt16LE(from);
    from += 2;
    const length = extended(token & 15) + 4;
    if (distance === 0 || distance > to || to + length > out.length) throw new RangeError('a damaged block');
    // It may overlap what it makes.
    if (distance >= length) out.copyWithin(to, to - distance, to - distance + length);
    else for (let i = 0; i < length; i++) out[to + i] = out[to + i - distance] as number;
    to += length;
  }
  return out.subarray(0, to);
}
