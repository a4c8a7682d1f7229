/**
 * A million indicators in about 70 MB: every value is a key of bytes in one blob, found through an open hash table,
 * with its entries (one for each time a source names it) in columns of typed arrays. Ranges of addresses are keys of
 * prefix length and address, so a lookup asks once for each length that occurs, longest first, and gets all that
 * match.
 *
 * An index never changes once it is built: a reload builds another and replaces the reference (snapshot.ts). Its parts
 * are plain arrays, so that another thread can build them and hand them over without a copy.
 */
import { limits } from '../core/limits.ts';
import { masked, parseAddress, severities } from './indicator.ts';
import type { AddressRange, Indicator, IndicatorKind, Severity } from './indicator.ts';

/** What one source says about one value. */
export interface Entry {
  /** Number of the feed. */
  readonly source: number;
  readonly confidence: number;
  readonly severity: Severity;
  readonly validFrom: number;
  readonly validUntil: number;
  readonly labels: readonly string[];
}

export interface Hit extends Entry {
  /** The indicator's value, which may be wider than what was asked for. */
  readonly value: string;
}

const NONE = 0xffff_ffff;
/** First byte of a key. */
const KEY_TAGS: Readonly<Record<IndicatorKind, number>> = { ip: 0, domain: 3, url: 4, email: 5, hash: 6 };
const KEY_BYTES_MAX = 2050;

/** Bytes of `value` as a key, written to `into`; the length. */
function writeKey(into: Buffer, at: number, kind: IndicatorKind, value: string): number {
  into[at] = KEY_TAGS[kind];
  return 1 + into.write(value, at + 1, 'latin1');
}

function writeAddressKey(into: Buffer, at: number, { bytes, prefix }: AddressRange): number {
  into[at] = bytes.length === 4 ? 1 : 2;
  into[at + 1] = prefix;
  for (let i = 0; i < bytes.length; i++) into[at + 2 + i] = bytes[i] ?? 0;
  return 2 + bytes.length;
}

/** FNV-1a with a last mix. The seed keeps a feed from choosing values that all meet in one slot. */
function hashOf(bytes: Buffer, start: number, end: number, seed: number): number {
  let hash = (0x811c_9dc5 ^ seed) | 0;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x0100_0193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

interface Columns {
  readonly blob: Uint8Array;
  /** Where the key of number n ends; it begins where the one before ends. */
  readonly keyEnds: Uint32Array;
  readonly firstEntry: Uint32Array;
  readonly next: Uint32Array;
  readonly source: Uint8Array;
  readonly confidence: Uint8Array;
  readonly severity: Uint8Array;
  readonly validFrom: Uint32Array;
  readonly validUntil: Uint32Array;
  readonly labelSet: Uint16Array;
}

/** All of an index; survives a structured clone, and its arrays a transfer. */
export interface IndexParts {
  readonly columns: Columns;
  readonly slots: Uint32Array;
  readonly labelSets: readonly (readonly string[])[];
  readonly seed: number;
  readonly prefixes: { readonly 4: readonly number[]; readonly 16: readonly number[] };
  readonly size: number;
  readonly dropped: number;
}

/** Their memory: who hands the parts over to another thread has them no more. */
export function buffersOf({ columns, slots }: IndexParts): ArrayBuffer[] {
  return [...Object.values(columns), slots].map((array: Uint8Array) => array.buffer as ArrayBuffer);
}

export class IndicatorIndex {
  /** Entries; as many as were added, but for exact repetitions and what the bounds left out. */
  readonly size: number;
  /** Entries that did not fit its bounds. */
  readonly dropped: number;
  readonly #columns: Columns;
  readonly #blob: Buffer;
  readonly #slots: Uint32Array;
  readonly #labelSets: readonly (readonly string[])[];
  readonly #seed: number;
  readonly #prefixes: { readonly 4: readonly number[]; readonly 16: readonly number[] };
  readonly #scratch = Buffer.alloc(KEY_BYTES_MAX);

  constructor(built: IndexParts) {
    this.#columns = built.columns;
    const { buffer, byteOffset, byteLength } = built.columns.blob;
    this.#blob = Buffer.from(buffer, byteOffset, byteLength);
    this.#slots = built.slots;
    this.#labelSets = built.labelSets;
    this.#seed = built.seed;
    this.#prefixes = built.prefixes;
    this.size = built.size;
    this.dropped = built.dropped;
  }

  get bytes(): number {
    const arrays = [...Object.values(this.#columns), this.#slots] as ArrayBufferView[];
    return arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Everything that the index says about a normalised value, closest first: longest prefix, most specific domain. */
  lookup(kind: IndicatorKind, value: string): Hit[] {
    const hits: Hit[] = [];
    if (value.length + 1 > KEY_BYTES_MAX) return hits;
    if (kind === 'ip') {
      const range = parseAddress(value);
      if (range !== undefined) this.#lookupAddress(range, hits);
    } else if (kind === 'domain') {
      for (let from = 0; from >= 0; from = nextLabel(value, from)) this.#lookupText(kind, value.slice(from), hits);
    } else this.#lookupText(kind, value, hits);
    return hits;
  }

  #lookupAddress({ bytes, prefix: longest }: AddressRange, hits: Hit[]): void {
    for (const prefix of bytes.length === 4 ? this.#prefixes[4] : this.#prefixes[16]) {
      if (prefix > longest) continue;
      const range = { bytes: masked(bytes, prefix), prefix };
      const key = this.#find(writeAddressKey(this.#scratch, 0, range));
      if (key !== NONE) this.#collect(key, range, hits);
    }
  }

  #lookupText(kind: IndicatorKind, value: string, hits: Hit[]): void {
    const key = this.#find(writeKey(this.#scratch, 0, kind, value));
    if (key !== NONE) this.#collect(key, value, hits);
  }

  #find(length: number): number {
    const { keyEnds } = this.#columns;
    const blob = this.#blob;
    const mask = this.#slots.length - 1;
    for (let slot = hashOf(this.#scratch, 0, length, this.#seed) & mask; ; slot = (slot + 1) & mask) {
      const key = this.#slots[slot] ?? NONE;
      if (key === NONE) return NONE;
      const start = key === 0 ? 0 : (keyEnds[key - 1] ?? 0);
      const end = keyEnds[key] ?? 0;
      if (end - start === length && blob.compare(this.#scratch, 0, length, start, end) === 0) return key;
    }
  }

  #collect(key: number, value: string | AddressRange, hits: Hit[]): void {
    const columns = this.#columns;
    const text = typeof value === 'string' ? value : addressText(value);
    for (let entry = columns.firstEntry[key] ?? NONE; entry !== NONE; entry = columns.next[entry] ?? NONE) {
      hits.push({
        value: text,
        source: columns.source[entry] ?? 0,
        confidence: columns.confidence[entry] ?? 0,
        severity: severities[columns.severity[entry] ?? 0] ?? 'low',
        validFrom: columns.validFrom[entry] ?? 0,
        validUntil: columns.validUntil[entry] ?? 0,
        labels: this.#labelSets[columns.labelSet[entry] ?? 0] ?? [],
      });
    }
  }
}

function addressText({ bytes, prefix }: AddressRange): string {
  if (bytes.length === 4) return prefix === 32 ? bytes.join('.') : `${bytes.join('.')}/${prefix}`;
  const groups = Array.from({ length: 8 }, (_, at) =>
    (((bytes[at * 2] ?? 0) << 8) | (bytes[at * 2 + 1] ?? 0)).toString(16),
  );
  return prefix === 128 ? groups.join(':') : `${groups.join(':')}/${prefix}`;
}

function nextLabel(domain: string, from: number): number {
  const dot = domain.indexOf('.', from);
  return dot < 0 ? -1 : dot + 1;
}

type Growable = Uint8Array | Uint16Array | Uint32Array;

function grown<T extends Growable>(array: T, need: number): T {
  if (need <= array.length) return array;
  const larger = new (array.constructor as new (length: number) => T)(Math.max(need, Math.ceil(array.length * 1.5)));
  larger.set(array);
  return larger;
}

export class IndexBuilder {
  readonly #seed: number;
  readonly #indicatorsMax: number;
  #blob: Buffer;
  #blobEnd = 0;
  #keys = 0;
  #entries = 0;
  #dropped = 0;
  #keyEnds: Uint32Array;
  #firstEntry: Uint32Array;
  #next: Uint32Array;
  #source: Uint8Array;
  #confidence: Uint8Array;
  #severity: Uint8Array;
  #validFrom: Uint32Array;
  #validUntil: Uint32Array;
  #labelSet: Uint16Array;
  #slots: Uint32Array;
  readonly #labelSets: string[][] = [[]];
  readonly #labelNumbers = new Map<string, number>([['', 0]]);
  readonly #prefixes = { 4: new Set<number>(), 16: new Set<number>() };

  /**
   * `seed`: any 32 bits that whoever writes feeds does not know; it changes no answer. `expected`: how many are
   * coming, so that nothing has to grow, which takes time at once.
   */
  constructor(seed: number, expected = 1024, indicatorsMax: number = limits.intelIndicatorsMax) {
    this.#seed = seed;
    this.#indicatorsMax = indicatorsMax;
    const size = Math.max(1024, Math.min(expected, indicatorsMax));
    this.#blob = Buffer.alloc(size * 32 + KEY_BYTES_MAX);
    [this.#keyEnds, this.#firstEntry, this.#next] = [
      new Uint32Array(size),
      new Uint32Array(size),
      new Uint32Array(size),
    ];
    [this.#source, this.#confidence, this.#severity] = [
      new Uint8Array(size),
      new Uint8Array(size),
      new Uint8Array(size),
    ];
    [this.#validFrom, this.#validUntil, this.#labelSet] = [
      new Uint32Array(size),
      new Uint32Array(size),
      new Uint16Array(size),
    ];
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(size * 2 + 2))).fill(NONE);
  }

  add(source: number, indicator: Omit<Indicator, 'id' | 'labels'> & { readonly labels: string }): void {
    if (this.#entries >= this.#indicatorsMax || indicator.value.length + 1 > KEY_BYTES_MAX) {
      this.#dropped += 1;
      return;
    }
    const length = this.#writeKey(indicator);
    if (length === 0) return;
    const key = this.#keyNumber(length);
    const labelSet = this.#labels(indicator.labels);
    const severity = severities.indexOf(indicator.severity);
    let last = NONE;
    let count = 0;
    for (let at = this.#firstEntry[key] ?? NONE; at !== NONE; at = this.#next[at] ?? NONE, count++) {
      const same =
        this.#source[at] === source &&
        this.#confidence[at] === indicator.confidence &&
        this.#severity[at] === severity &&
        this.#labelSet[at] === labelSet &&
        this.#validFrom[at] === indicator.validFrom &&
        this.#validUntil[at] === indicator.validUntil;
      if (same) return;
      last = at;
    }
    if (count >= limits.intelEntriesPerValueMax) {
      this.#dropped += 1;
      return;
    }
    const entry = this.#newEntry();
    if (last === NONE) this.#firstEntry[key] = entry;
    else this.#next[last] = entry;
    this.#source[entry] = source;
    this.#confidence[entry] = indicator.confidence;
    this.#severity[entry] = severity;
    this.#validFrom[entry] = indicator.validFrom;
    this.#validUntil[entry] = indicator.validUntil;
    this.#labelSet[entry] = labelSet;
  }

  build(): IndicatorIndex {
    return new IndicatorIndex(this.parts());
  }

  /** The same as plain arrays, each with memory of its own. */
  parts(): IndexParts {
    const { [4]: four, [16]: sixteen } = this.#prefixes;
    const longestFirst = (prefixes: Set<number>): number[] => [...prefixes].sort((a, b) => b - a);
    return {
      columns: {
        blob: new Uint8Array(this.#blob.subarray(0, this.#blobEnd)),
        keyEnds: this.#keyEnds.slice(0, this.#keys),
        firstEntry: this.#firstEntry.slice(0, this.#keys),
        next: this.#next.slice(0, this.#entries),
        source: this.#source.slice(0, this.#entries),
        confidence: this.#confidence.slice(0, this.#entries),
        severity: this.#severity.slice(0, this.#entries),
        validFrom: this.#validFrom.slice(0, this.#entries),
        validUntil: this.#validUntil.slice(0, this.#entries),
        labelSet: this.#labelSet.slice(0, this.#entries),
      },
      slots: this.#slots.slice(),
      labelSets: [...this.#labelSets],
      seed: this.#seed,
      prefixes: { 4: longestFirst(four), 16: longestFirst(sixteen) },
      size: this.#entries,
      dropped: this.#dropped,
    };
  }

  /** Appends the key behind the blob; whether it stays is decided by `#keyNumber`. */
  #writeKey({ kind, value }: { readonly kind: IndicatorKind; readonly value: string }): number {
    if (this.#blobEnd + KEY_BYTES_MAX > this.#blob.length) {
      const larger = Buffer.alloc(Math.ceil(this.#blob.length * 1.5));
      this.#blob.copy(larger, 0, 0, this.#blobEnd);
      this.#blob = larger;
    }
    if (kind !== 'ip') return writeKey(this.#blob, this.#blobEnd, kind, value);
    const range = parseAddress(value);
    if (range === undefined) return 0;
    this.#prefixes[range.bytes.length === 4 ? 4 : 16].add(range.prefix);
    return writeAddressKey(this.#blob, this.#blobEnd, range);
  }

  #keyNumber(length: number): number {
    if ((this.#keys + 1) * 2 > this.#slots.length) this.#rehash();
    const end = this.#blobEnd + length;
    const mask = this.#slots.length - 1;
    let slot = hashOf(this.#blob, this.#blobEnd, end, this.#seed) & mask;
    for (; ; slot = (slot + 1) & mask) {
      const key = this.#slots[slot] ?? NONE;
      if (key === NONE) break;
      const start = key === 0 ? 0 : (this.#keyEnds[key - 1] ?? 0);
      const keyEnd = this.#keyEnds[key] ?? 0;
      const equal =
        keyEnd - start === length && this.#blob.compare(this.#blob, this.#blobEnd, end, start, keyEnd) === 0;
      if (equal) return key;
    }
    const key = this.#keys++;
    this.#slots[slot] = key;
    this.#keyEnds = grown(this.#keyEnds, this.#keys);
    this.#firstEntry = grown(this.#firstEntry, this.#keys);
    this.#keyEnds[key] = end;
    this.#firstEntry[key] = NONE;
    this.#blobEnd = end;
    return key;
  }

  #rehash(): void {
    const slots = new Uint32Array(this.#slots.length * 2).fill(NONE);
    const mask = slots.length - 1;
    for (let key = 0, start = 0; key < this.#keys; key++) {
      const end = this.#keyEnds[key] ?? 0;
      let slot = hashOf(this.#blob, start, end, this.#seed) & mask;
      while (slots[slot] !== NONE) slot = (slot + 1) & mask;
      slots[slot] = key;
      start = end;
    }
    this.#slots = slots;
  }

  #newEntry(): number {
    const entry = this.#entries++;
    this.#next = grown(this.#next, this.#entries);
    this.#source = grown(this.#source, this.#entries);
    this.#confidence = grown(this.#confidence, this.#entries);
    this.#severity = grown(this.#severity, this.#entries);
    this.#validFrom = grown(this.#validFrom, this.#entries);
    this.#validUntil = grown(this.#validUntil, this.#entries);
    this.#labelSet = grown(this.#labelSet, this.#entries);
    this.#next[entry] = NONE;
    return entry;
  }

  #labels(text: string): number {
    const known = this.#labelNumbers.get(text);
    if (known !== undefined) return known;
    if (this.#labelSets.length > limits.intelLabelSetsMax) return 0;
    const number = this.#labelSets.push(text.split(',')) - 1;
    this.#labelNumbers.set(text, number);
    return number;
  }
}
