/**
 * BTF, the kernel's own description of its types (Documentation/bpf/btf.rst): where each field of each structure
 * stands. Pure and bounded; a damaged one is refused, never believed in part.
 */

export type BtfType =
  | {
      readonly kind: 'int';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly bool: boolean;
    }
  | { readonly kind: 'float'; readonly name: string; readonly size: number }
  | { readonly kind: 'pointer'; readonly target: number }
  | { readonly kind: 'array'; readonly of: number; readonly count: number }
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly size: number;
      readonly members: readonly BtfMember[];
    }
  | {
      readonly kind: 'enum';
      readonly name: string;
      readonly size: number;
      readonly values: ReadonlyMap<string, bigint>;
    }
  | { readonly kind: 'alias'; readonly name: string; readonly target: number }
  | { readonly kind: 'function' | 'forward' | 'void'; readonly name: string };

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  /** From the beginning of the structure, bits. */
  readonly bitOffset: number;
  /** Of a bit field; 0 for others. */
  readonly bitSize: number;
}

export interface Btf {
  readonly types: readonly BtfType[];
  /** The first structure or union of that name. */
  struct(name: string): Extract<BtfType, { kind: 'struct' | 'union' }> | undefined;
  /** Value of an enumerator, in whatever enumeration it is. */
  constant(name: string): bigint | undefined;
  /** Without typedef, const, volatile and the like. */
  resolve(type: number): BtfType;
  /** Bytes; undefined for what has none. */
  sizeOf(type: number): number | undefined;
}

/** Throws Error when it is damaged. */
export function parseBtf(bytes: Buffer): Btf {
  if (bytes.length < 24 || bytes.readUInt16LE(0) !== 0xeb9f) throw new Error('no BTF');
  const header = bytes.readUInt32LE(4);
  const from = header + bytes.readUInt32LE(8);
  const end = from + bytes.readUInt32LE(12);
  const strings = bytes.subarray(header + bytes.readUInt32LE(16)).subarray(0, bytes.readUInt32LE(20));
  const text = (offset: number): string => strings.toString('latin1', offset, strings.indexOf(0, offset));
  const types: BtfType[] = [{ kind: 'void', name: 'void' }];
  let at = from;
  while (at < end) {
    const { type, next } = parseType(bytes, at, text);
    types.push(type);
    at = next;
  }
  return new Types(types);
}

function parseType(bytes: Buffer, at: number, text: (offset: number) => string): { type: BtfType; next: number } {
  const name = text(bytes.readUInt32LE(at));
  const info = bytes.readUInt32LE(at + 4);
  const size = bytes.readUInt32LE(at + 8);
  const [count, kind, flag] = [info & 0xffff, (info >>> 24) & 0x1f, info >>> 31 === 1];
  const body = at + 12;
  switch (kind) {
    case 1: {
      const encoding = bytes.readUInt32LE(body) >>> 24;
      const type = { kind: 'int', name, size, signed: (encoding & 1) !== 0, bool: (encoding & 4) !== 0 } as const;
      return { type, next: body + 4 };
    }
    case 2:
      return { type: { kind: 'pointer', target: size }, next: body };
    case 3:
      return {
        type: { kind: 'array', of: bytes.readUInt32LE(body), count: bytes.readUInt32LE(body + 8) },
        next: body + 12,
      };
    case 4:
    case 5: {
      const members = Array.from({ length: count }, (_, index): BtfMember => {
        const place = body + index * 12;
        const offset = bytes.readUInt32LE(place + 8);
        return {
          name: text(bytes.readUInt32LE(place)), type: bytes.readUInt32LE(place + 4),
          bitOffset: flag ? offset & 0xffffff : offset, bitSize: flag ? offset >>> 24 : 0,
        };
      });
      return { type: { kind: kind === 4 ? 'struct' : 'union', name, size, members }, next: body + count * 12 };
    }
    case 6:
    case 19: {
      const step = kind === 6 ? 8 : 12;
      const values = new Map<string, bigint>();
      for (let index = 0; index < count; index++) {
        const place = body + index * step;
        const low = flag || kind === 6 ? BigInt(bytes.readInt32LE(place + 4)) : BigInt(bytes.readUInt32LE(place + 4));
        const high = kind === 6 ? 0n : BigInt(bytes.readInt32LE(place + 8)) << 32n;
        values.set(text(bytes.readUInt32LE(place)), kind === 6 ? low : high + BigInt(bytes.readUInt32LE(place + 4)));
      }
      return { type: { kind: 'enum', name, size, values }, next: body + count * step };
    }
    case 7:
      return { type: { kind: 'forward', name }, next: body };
    case 8: case 9: case 10: case 11: case 18:
      return { type: { kind: 'alias', name, target: size }, next: body };
    case 12:
      return { type: { kind: 'function', name }, next: body };
    case 13:
      return { type: { kind: 'function', name }, next: body + count * 8 };
    case 14: case 17:
      return { type: { kind: 'void', name }, next: body + 4 };
    case 15:
      return { type: { kind: 'void', name }, next: body + count * 12 };
    case 16:
      return { type: { kind: 'float', name, size }, next: body };
    default:
      throw new Error(`BTF of an unknown kind ${kind}`);
  }
}

/** Typedefs of typedefs: the kernel has five at most. */
const ALIASES_MAX = 32;

class Types implements Btf {
  readonly types: readonly BtfType[];
  readonly #structs = new Map<string, Extract<BtfType, { kind: 'struct' | 'union' }>>();
  readonly #constants = new Map<string, bigint>();

  constructor(types: readonly BtfType[]) {
    this.types = types;
    for (const type of types) {
      if ((type.kind === 'struct' || type.kind === 'union') && type.name !== '' && !this.#structs.has(type.name)) {
        this.#structs.set(type.name, type);
      }
      if (type.kind === 'enum') for (const [name, value] of type.values) this.#constants.set(name, value);
    }
  }

  struct(name: string): Extract<BtfType, { kind: 'struct' | 'union' }> | undefined {
    return this.#structs.get(name);
  }

  constant(name: string): bigint | undefined {
    return this.#constants.get(name);
  }

  resolve(index: number): BtfType {
    let type = this.types[index];
    for (let step = 0; type?.kind === 'alias' && step < ALIASES_MAX; step++) type = this.types[type.target];
    if (type === undefined || type.kind === 'alias') throw new Error(`BTF has no type ${index}`);
    return type;
  }

  sizeOf(index: number): number | undefined {
    const type = this.resolve(index);
    switch (type.kind) {
      case 'pointer':
        return 8;
      case 'array': {
        const size = this.sizeOf(type.of);
        return size === undefined ? undefined : size * type.count;
      }
      case 'int': case 'float': case 'enum': case 'struct': case 'union':
        return type.size;
      default:
        return undefined;
    }
  }
}
