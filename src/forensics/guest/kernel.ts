/**
 * The kernel in a guest's memory, read by its own types and symbols. Everything that is found there was written by a
 * guest that may have owned its kernel: it is what the memory says, not the truth, and no pointer is followed twice
 * where it could make a circle.
 */
import { limits } from '../../core/limits.ts';
import type { Btf, BtfType } from '../kernel/btf.ts';
import { AddressSpace, PAGE } from './memory.ts';
import type { GuestMemory } from './memory.ts';

/** What the kernel was built with. */
export interface KernelSymbols {
  readonly btf: Btf;
  /** Addresses before KASLR. */
  readonly symbols: ReadonlyMap<string, bigint>;
}

/** KASLR moves the kernel by multiples of this, within this much. */
const KASLR_STEP = 0x200000n;
const KASLR_RANGE = 0x40000000n;
const KERNEL_START = 0xffffffff80000000n;
/** CR4: five levels of page tables. */
const LA57 = 0x1000n;
/** With page-table isolation the user's half of a pair of tables has this bit. */
const USER_TABLE = 0x1000n;

type Struct = Extract<BtfType, { kind: 'struct' | 'union' }>;

export interface Field {
  readonly offset: number;
  readonly type: BtfType;
  readonly bitOffset: number;
  readonly bitSize: number;
}

export class GuestKernel {
  readonly space: AddressSpace;
  readonly btf: Btf;
  /** What KASLR has added to every address of the kernel. */
  readonly slide: bigint;
  readonly #symbols: ReadonlyMap<string, bigint>;
  readonly #fields = new Map<string, Field>();
  #reads = 0;

  private constructor(space: AddressSpace, { btf, symbols }: KernelSymbols, slide: bigint) {
    this.space = space;
    this.btf = btf;
    this.slide = slide;
    this.#symbols = symbols;
  }

  /** `registers`: as QEMU prints them. Throws Error when there is no such kernel in the memory. */
  static find(memory: GuestMemory, symbols: KernelSymbols, registers: string): GuestKernel {
    const register = (name: string): bigint => {
      return BigInt(`0x${new RegExp(`${name}=([0-9a-f]{1,16})`).exec(registers)?.[1] ?? '0'}`);
    };
    const root = register('CR3') & 0x000ffffffffff000n & ~USER_TABLE;
    const levels = (register('CR4') & LA57) !== 0n ? 5 : 4;
    for (const table of [root, root | USER_TABLE]) {
      const space = new AddressSpace(memory, Number(table), levels);
      const slide = findSlide(space, symbols);
      if (slide !== undefined) return new GuestKernel(space, symbols, slide);
    }
    throw new Error('the kernel was not found in the memory: it is another one, or the memory is damaged');
  }

  /** The same kernel in another memory, as that of the template: page tables and KASLR are those of the boot. */
  in(memory: GuestMemory, registers: string): GuestKernel {
    return GuestKernel.find(memory, { btf: this.btf, symbols: this.#symbols }, registers);
  }

  symbol(name: string): bigint {
    const address = this.#symbols.get(name);
    if (address === undefined) throw new Error(`the kernel has no symbol ${name}`);
    // Per-CPU variables have small addresses, and are moved otherwise.
    return address < KERNEL_START ? address : address + this.slide;
  }

  has(struct: string, path: string): boolean {
    try {
      this.field(struct, path);
      return true;
    } catch {
      return false;
    }
  }

  /** `path`: as in `mnt.mnt_sb`; members of nameless unions are found as in C. Throws when there is none. */
  field(struct: string, path: string): Field {
    const key = `${struct} ${path}`;
    const known = this.#fields.get(key);
    if (known !== undefined) return known;
    let type: BtfType = this.#struct(struct);
    let field: Field = { offset: 0, type, bitOffset: 0, bitSize: 0 };
    for (const name of path.split('.')) {
      if (type.kind !== 'struct' && type.kind !== 'union') throw new Error(`${key}: no structure`);
      const found = this.#member(type, name, 0);
      if (found === undefined) throw new Error(`the kernel has no ${key}`);
      field = { ...found, offset: field.offset + found.offset };
      type = found.type;
    }
    this.#fields.set(key, field);
    return field;
  }

  sizeOf(struct: string): number {
    return this.#struct(struct).size;
  }

  #struct(name: string): Struct {
    const found = this.btf.struct(name);
    if (found === undefined) throw new Error(`the kernel has no structure ${name}`);
    return found;
  }

  #member(struct: Struct, name: string, depth: number): Field | undefined {
    if (depth > 8) return undefined;
    for (const member of struct.members) {
      const type = this.btf.resolve(member.type);
      const offset = member.bitOffset >> 3;
      if (member.name === name) {
        return { offset, type, bitOffset: member.bitOffset & 7, bitSize: member.bitSize };
      }
      if (member.name !== '' || (type.kind !== 'struct' && type.kind !== 'union')) continue;
      const inner = this.#member(type, name, depth + 1);
      if (inner !== undefined) return { ...inner, offset: offset + inner.offset };
    }
    return undefined;
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  /** Throws when all that is read of one memory takes more reads than any honest one does: it leads in circles. */
  read(address: bigint, bytes: number): Buffer | undefined {
    this.#reads += 1;
    if (this.#reads > limits.guestReadsMax) throw new Error('the memory leads in circles');
    return this.space.read(address, bytes);
  }

  /** An unsigned number of 1 to 8 bytes at a field; 0 where nothing is mapped. */
  number(address: bigint, struct: string, path: string): bigint {
    const { offset, type } = this.field(struct, path);
    const size = 'size' in type ? Math.min(type.size, 8) : 8;
    return this.word(address + BigInt(offset), size);
  }

  pointer(address: bigint, struct: string, path: string): bigint {
    return this.word(address + BigInt(this.field(struct, path).offset), 8);
  }

  word(address: bigint, size: number): bigint {
    const bytes = this.read(address, size);
    if (bytes === undefined) return 0n;
    return size === 8 ? bytes.readBigUInt64LE(0) : BigInt(bytes.readUIntLE(0, size));
  }

  /** Text up to a zero, at most `bytesMax`. */
  text(address: bigint, bytesMax: number): string {
    let bytes = this.read(address, bytesMax);
    // It may end right before what is not mapped.
    if (bytes === undefined) bytes = this.read(address, PAGE - Number(address & 0xfffn));
    if (bytes === undefined) return '';
    const end = bytes.indexOf(0);
    return bytes.toString('utf8', 0, Math.min(end === -1 ? bytes.length : end, bytesMax));
  }

  textField(address: bigint, struct: string, path: string): string {
    const { offset, type } = this.field(struct, path);
    return this.text(address + BigInt(offset), type.kind === 'array' ? type.count : 1);
  }

  /** Structures on a list: `head` is the list's own, `path` the member by which they hang on it. */
  *list(head: bigint, struct: string, path: string, most: number): Generator<bigint> {
    const offset = BigInt(this.field(struct, path).offset);
    const seen = new Set<bigint>();
    for (let at = this.word(head, 8); at !== head && at !== 0n && seen.size < most; at = this.word(at, 8)) {
      if (seen.has(at)) return;
      seen.add(at);
      yield at - offset;
    }
  }
}

/** Where `init_task` stands tells by how much the kernel was moved: its name is `swapper/0`. */
function findSlide(space: AddressSpace, { btf, symbols }: KernelSymbols): bigint | undefined {
  const task = btf.struct('task_struct');
  const comm = task?.members.find(({ name }) => name === 'comm');
  const init = symbols.get('init_task');
  if (comm === undefined || init === undefined) throw new Error('the kernel\'s description has no init_task');
  const wanted = Buffer.from('swapper/0\0');
  for (let slide = 0n; slide < KASLR_RANGE; slide += KASLR_STEP) {
    const at = init + slide + BigInt(comm.bitOffset >> 3);
    if (space.read(at, wanted.length)?.equals(wanted) === true) return slide;
  }
  return undefined;
}
