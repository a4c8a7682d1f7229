/**
 * Names and addresses of the kernel's symbols, out of the table that the kernel itself carries (kernel/kallsyms.c):
 * Debian ships no System.map with its kernels. The table has no header; it is found by its forms. Linux 6.1 and 6.4 and
 * newer, which differ in what stands where. Pure; addresses are those of the build, before KASLR.
 */
import type { Section } from './vmlinux.ts';

/** A token is a piece of a name; one byte of a compressed name stands for it. */
const TOKENS = 256;
/** Symbols between two markers. */
const STRIDE = 256;

/** Name to address; of a name that occurs more than once, the first. Throws Error when there is no table. */
export function parseKallsyms({ bytes, address }: Section): ReadonlyMap<string, bigint> {
  const tokens = findTokens(bytes);
  const { names, count } = findNames(bytes, tokens.start);
  const offsets = findOffsets(bytes, { address, names, count, tokensEnd: tokens.end });
  const symbols = new Map<string, bigint>();
  let at = names;
  for (let index = 0; index < count; index++) {
    const { length, head } = lengthAt(bytes, at);
    let text = '';
    for (let i = 0; i < length; i++) text += tokens.texts[bytes.readUInt8(at + head + i)] ?? '';
    at += head + length;
    // The first letter is its kind.
    const name = text.slice(1);
    if (!symbols.has(name)) symbols.set(name, offsets(index));
  }
  return symbols;
}

/** From 6.1 on a name of more than 127 tokens has a length of two bytes. */
function lengthAt(bytes: Buffer, at: number): { readonly length: number; readonly head: number } {
  const first = bytes.readUInt8(at);
  return first < 0x80
    ? { length: first, head: 1 }
    : { length: (first & 0x7f) | (bytes.readUInt8(at + 1) << 7), head: 2 };
}

interface Tokens {
  readonly start: number;
  /** After the index. */
  readonly end: number;
  readonly texts: readonly string[];
}

/** The tokens of the ten digits are the digits themselves, one after another; 256 offsets into the table follow it. */
function findTokens(bytes: Buffer): Tokens {
  const digits = Buffer.from('0\u00001\u00002\u00003\u00004\u00005\u00006\u00007\u00008\u00009\u0000', 'latin1');
  for (let hit = bytes.indexOf(digits); hit !== -1; hit = bytes.indexOf(digits, hit + 1)) {
    // Tokens before the digit 0: 48 texts, each ends with a zero.
    let start = hit - 1;
    for (let left = 48; left > 0 && start > 0; left--) start = bytes.lastIndexOf(0, start - 1);
    start += 1;
    let at = start;
    const texts: string[] = [];
    const places: number[] = [];
    for (let token = 0; token < TOKENS; token++) {
      const end = bytes.indexOf(0, at);
      places.push(at - start);
      texts.push(bytes.toString('latin1', at, end));
      at = end + 1;
    }
    const index = align(at, 8);
    if (places.every((place, token) => bytes.readUInt16LE(index + token * 2) === place)) {
      return { start, end: index + TOKENS * 2, texts };
    }
  }
  throw new Error('the kernel has no table of symbols');
}

/** Steps from one marker to the next, bytes: 256 names of 2 to 80 bytes. */
const MARKER_STEP_MIN = 2 * STRIDE;
const MARKER_STEP_MAX = 80 * STRIDE;
/** So many in a row are no accident. */
const MARKERS_MIN = 32;

/** Before the tokens stand the markers, offsets of every 256th name; before those the names, and their number. */
function findNames(bytes: Buffer, tokensStart: number): { readonly names: number; readonly count: number } {
  // 6.2 and 6.3, and what was taken over from them, have the order of the names in between.
  for (let at = tokensStart & ~7; at > 8; at -= 8) {
    const markers = markersAt(bytes, at);
    if (markers < MARKERS_MIN) continue;
    const found = namesBefore(bytes, at, markers);
    if (found !== undefined) return found;
  }
  throw new Error('the names of the symbols were not found');
}

/** How many markers begin here. */
function markersAt(bytes: Buffer, at: number): number {
  if (bytes.readUInt32LE(at) !== 0) return 0;
  let markers = 1;
  for (let last = 0; at + markers * 4 + 4 <= bytes.length; markers++) {
    const next = bytes.readUInt32LE(at + markers * 4);
    if (next < last + MARKER_STEP_MIN || next > last + MARKER_STEP_MAX) break;
    last = next;
  }
  return markers;
}

type Names = { readonly names: number; readonly count: number };

function namesBefore(bytes: Buffer, at: number, markers: number): Names | undefined {
  const last = bytes.readUInt32LE(at + (markers - 1) * 4);
  const first = bytes.readUInt32LE(at + 4);
  // The last names, at most 256 of at most 300 bytes, lie behind the last marker.
  for (let names = (at - last) & ~7; names > at - last - STRIDE * 300 && names > 8; names -= 8) {
    const count = bytes.readUInt32LE(names - 8);
    if (count <= (markers - 1) * STRIDE || count > markers * STRIDE) continue;
    let end = names;
    for (let index = 0; index < STRIDE; index++) {
      const { length, head } = lengthAt(bytes, end);
      end += head + length;
    }
    if (end - names === first) return { names, count };
  }
  return undefined;
}

interface Layout {
  readonly address: bigint;
  readonly names: number;
  readonly count: number;
  readonly tokensEnd: number;
}

function findOffsets(bytes: Buffer, { names, count, tokensEnd }: Layout): (index: number) => bigint {
  const old = { base: names - 16, offsets: names - 16 - align(count * 4, 8) };
  const recent = { base: align(tokensEnd + count * 4, 8), offsets: tokensEnd };
  for (const { base, offsets } of [old, recent]) {
    if (offsets < 0 || base + 8 > bytes.length) continue;
    const relative = bytes.readBigUInt64LE(base);
    if (relative < 0xffffffff80000000n || relative > 0xffffffffc0000000n) continue;
    return (index) => {
      const offset = bytes.readInt32LE(offsets + index * 4);
      // Positive: absolute, of a per-CPU variable.
      return offset >= 0 ? BigInt(offset) : relative - 1n - BigInt(offset);
    };
  }
  throw new Error('the addresses of the symbols were not found');
}

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
