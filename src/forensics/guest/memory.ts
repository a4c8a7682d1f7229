/**
 * Physical memory of a guest that is no more: the pages of its template and, above them, those that its clone changed.
 * And virtual memory, by the page tables that are in it. A guest can have written anything into them: every walk is
 * bounded, and what leads nowhere is undefined.
 */

export const PAGE = 4096;

/** Below 4 GiB a q35 machine has this much RAM; the rest begins at 4 GiB. */
const LOW_BYTES = 0xb0000000;
const LOW_BYTES_OF_LARGE = 0x80000000;
const HIGH_START = 0x100000000;

export interface Segment {
  readonly physical: number;
  readonly bytes: number;
  /** Within the RAM image. */
  readonly offset: number;
}

/** Where the machine has its RAM (hw/i386/pc_q35.c). */
function ramSegments(ramBytes: number): readonly Segment[] {
  if (ramBytes < LOW_BYTES) return [{ physical: 0, bytes: ramBytes, offset: 0 }];
  return [
    { physical: 0, bytes: LOW_BYTES_OF_LARGE, offset: 0 },
    { physical: HIGH_START, bytes: ramBytes - LOW_BYTES_OF_LARGE, offset: LOW_BYTES_OF_LARGE },
  ];
}

export class GuestMemory {
  readonly ramBytes: number;
  readonly segments: readonly Segment[];
  readonly base: ReadonlyMap<number, Buffer>;
  readonly changed: ReadonlyMap<number, Buffer>;
  static readonly #zeros = Buffer.alloc(PAGE);

  /** Pages by their number in the RAM image; what is in neither is zeros. */
  constructor(ramBytes: number, base: ReadonlyMap<number, Buffer>, changed: ReadonlyMap<number, Buffer>) {
    this.ramBytes = ramBytes;
    this.segments = ramSegments(ramBytes);
    this.base = base;
    this.changed = changed;
  }

  /** As it was when the clone was made. */
  template(): GuestMemory {
    return new GuestMemory(this.ramBytes, this.base, new Map());
  }

  page(number: number): Buffer {
    return this.changed.get(number) ?? this.base.get(number) ?? GuestMemory.#zeros;
  }

  /** Page of the RAM image that a physical address is in. */
  pageOf(physical: number): number | undefined {
    const segment = this.segments.find((each) => physical >= each.physical && physical < each.physical + each.bytes);
    return segment === undefined ? undefined : Math.floor((physical - segment.physical + segment.offset) / PAGE);
  }

  /** Physical address of a page of the RAM image. */
  addressOf(page: number): number {
    const offset = page * PAGE;
    const segment = this.segments.findLast((each) => offset >= each.offset);
    return segment === undefined ? offset : offset - segment.offset + segment.physical;
  }

  /** Undefined where there is no memory. */
  readPhysical(physical: number, bytes: number): Buffer | undefined {
    const parts: Buffer[] = [];
    for (let at = physical; at < physical + bytes;) {
      const page = this.pageOf(at);
      if (page === undefined) return undefined;
      const from = at % PAGE;
      const take = Math.min(PAGE - from, physical + bytes - at);
      parts.push(this.page(page).subarray(from, from + take));
      at += take;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  }
}

const PRESENT = 1n;
const LARGE = 0x80n;
const ADDRESS = 0x000ffffffffff000n;

/** An address space: four levels of page tables, or five. */
export class AddressSpace {
  readonly memory: GuestMemory;
  readonly #root: number;
  readonly #levels: 4 | 5;
  readonly #known = new Map<bigint, number>();

  /** `root`: physical address of the top table. */
  constructor(memory: GuestMemory, root: number, levels: 4 | 5) {
    this.memory = memory;
    this.#root = root;
    this.#levels = levels;
  }

  other(root: number): AddressSpace {
    return new AddressSpace(this.memory, root, this.#levels);
  }

  /** Physical address; undefined when nothing is mapped there. */
  translate(virtual: bigint): number | undefined {
    const page = virtual & ~0xfffn;
    const known = this.#known.get(page);
    if (known !== undefined) return known + Number(virtual & 0xfffn);
    const physical = this.#walk(page);
    if (physical !== undefined) this.#known.set(page, physical);
    return physical === undefined ? undefined : physical + Number(virtual & 0xfffn);
  }

  #walk(page: bigint): number | undefined {
    let table = this.#root;
    for (let level: number = this.#levels; level >= 1; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const index = Number((page >> shift) & 0x1ffn);
      const entry = this.memory.readPhysical(table + index * 8, 8)?.readBigUInt64LE(0);
      if (entry === undefined || (entry & PRESENT) === 0n) return undefined;
      const size = 1n << shift;
      if (level === 1) return Number(entry & ADDRESS);
      if (level <= 3 && (entry & LARGE) !== 0n) {
        return Number((entry & ADDRESS & ~(size - 1n)) + (page & (size - 1n)));
      }
      table = Number(entry & ADDRESS);
    }
    return undefined;
  }

  /** Undefined when any of it is not mapped. */
  read(virtual: bigint, bytes: number): Buffer | undefined {
    const parts: Buffer[] = [];
    for (let done = 0; done < bytes;) {
      const at = virtual + BigInt(done);
      const take = Math.min(PAGE - Number(at & 0xfffn), bytes - done);
      const physical = this.translate(at);
      const part = physical === undefined ? undefined : this.memory.readPhysical(physical, take);
      if (part === undefined) return undefined;
      parts.push(part);
      done += take;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  }
}
