/**
 * The guest kernel's types and symbols as Volatility 3 reads them (ISF, Intermediate Symbol Format 6.2.0), made from
 * its BTF and its own table of symbols. BTF says nothing about the types of variables: those that Volatility asks for
 * by type are named here, all others have none.
 */
import type { OpenedKernel } from '../open.ts';
import type { Btf, BtfMember, BtfType } from './btf.ts';

type Json = { readonly [name: string]: unknown };

/** Variables by the structure that they are; `*` before a name: a pointer to one. */
const VARIABLES: Readonly<Record<string, string>> = {
  init_task: 'task_struct', init_mm: 'mm_struct', init_pid_ns: 'pid_namespace', init_nsproxy: 'nsproxy',
  init_cred: 'cred', init_files: 'files_struct', init_net: 'net', modules: 'list_head', net_namespace_list: 'list_head',
  super_blocks: 'list_head', tty_drivers: 'list_head', iomem_resource: 'resource', ioport_resource: 'resource',
  prb: '*printk_ringbuffer', module_kset: '*kset', keyboard_notifier_list: 'atomic_notifier_head',
  mod_tree: 'mod_tree_root', root_task_group: 'task_group', file_systems: '*file_system_type',
};

export function makeIsf({ btf, symbols, banner }: OpenedKernel): Json {
  const userTypes: Record<string, Json> = {};
  const enums: Record<string, Json> = {};
  const baseTypes: Record<string, Json> = {
    pointer: { size: 8, signed: false, kind: 'int', endian: 'little' },
    void: { size: 0, signed: false, kind: 'void', endian: 'little' },
  };
  btf.types.forEach((type, index) => {
    const name = nameOf(type, index);
    switch (type.kind) {
      case 'int':
        baseTypes[name] = { size: type.size, signed: type.signed, kind: kindOfInt(type), endian: 'little' };
        return;
      case 'float':
        baseTypes[name] = { size: type.size, signed: true, kind: 'float', endian: 'little' };
        return;
      case 'struct': case 'union': {
        const fields = Object.fromEntries(type.members.map((member, at) => [
          member.name === '' ? `unnamed_field_${at}` : member.name, fieldOf(btf, member),
        ]));
        userTypes[name] ??= { kind: type.kind, size: type.size, fields };
        return;
      }
      case 'enum':
        enums[name] ??= {
          size: type.size, base: baseOfEnum(type.size),
          constants: Object.fromEntries([...type.values].map(([key, value]) => [key, Number(value)])),
        };
        baseTypes[baseOfEnum(type.size)] ??= { size: type.size, signed: false, kind: 'int', endian: 'little' };
        return;
      default:
    }
  });
  const listed = Object.fromEntries([...symbols].map(([name, address]) => {
    return [name, symbolOf(btf, name, address, banner)];
  }));
  return {
    metadata: {
      format: '6.2.0', producer: { name: 'mayfly', version: '1' },
      linux: { symbols: [{ kind: 'kallsyms', name: 'vmlinux' }], types: [{ kind: 'btf', name: 'vmlinux' }] },
    },
    base_types: baseTypes, user_types: userTypes, enums, symbols: listed,
  };
}

function symbolOf(btf: Btf, name: string, address: bigint, banner: string): Json {
  // Addresses need all 64 bits, and JSON numbers of Python have them: written by `isfText`.
  const at = { address: `0x${address.toString(16)}` };
  if (name === 'linux_banner') {
    const text = Buffer.concat([Buffer.from(banner, 'latin1'), Buffer.from([0])]);
    const type = { kind: 'array', count: text.length, subtype: { kind: 'base', name: 'char' } };
    return { ...at, type, constant_data: text.toString('base64') };
  }
  const known = VARIABLES[name];
  const struct = known?.replace('*', '');
  if (known === undefined || struct === undefined || btf.struct(struct) === undefined) {
    return { ...at, type: { kind: 'base', name: 'void' } };
  }
  const type = { kind: btf.struct(struct)?.kind ?? 'struct', name: struct };
  return { ...at, type: known.startsWith('*') ? { kind: 'pointer', subtype: type } : type };
}

/** JSON text, its addresses as numbers of 64 bits. */
export function isfText(isf: Json): string {
  const text = JSON.stringify(isf);
  return text.replace(/"address":"(0x[0-9a-f]+)"/g, (_all, hex: string) => `"address":${BigInt(hex)}`);
}

function nameOf(type: BtfType, index: number): string {
  return 'name' in type && type.name !== '' ? type.name : `unnamed_${index.toString(16)}`;
}

function kindOfInt(type: Extract<BtfType, { kind: 'int' }>): string {
  if (type.bool) return 'bool';
  return type.size === 1 ? 'char' : 'int';
}

function baseOfEnum(size: number): string {
  return `enum_${size}`;
}

function fieldOf(btf: Btf, member: BtfMember): Json {
  const type = typeOf(btf, member.type, 0);
  const anonymous = member.name === '' ? { anonymous: true } : {};
  if (member.bitSize === 0) return { offset: member.bitOffset >> 3, type, ...anonymous };
  const size = btf.sizeOf(member.type) ?? 4;
  const offset = Math.floor(member.bitOffset / 8 / size) * size;
  const position = member.bitOffset - offset * 8;
  return { offset, type: { kind: 'bitfield', bit_length: member.bitSize, bit_position: position, type }, ...anonymous };
}

function typeOf(btf: Btf, index: number, depth: number): Json {
  let at = index;
  for (let step = 0; step < 32; step++) {
    const alias = btf.types[at];
    if (alias?.kind !== 'alias') break;
    at = alias.target;
  }
  const type = btf.types[at];
  if (type === undefined || depth > 32) return { kind: 'base', name: 'void' };
  switch (type.kind) {
    case 'pointer':
      return { kind: 'pointer', subtype: typeOf(btf, type.target, depth + 1) };
    case 'array':
      return { kind: 'array', count: type.count, subtype: typeOf(btf, type.of, depth + 1) };
    case 'int': case 'float':
      return { kind: 'base', name: nameOf(type, at) };
    case 'struct': case 'union': case 'enum':
      return { kind: type.kind, name: nameOf(type, at) };
    case 'function':
      return { kind: 'function' };
    case 'forward': {
      const found = btf.struct(type.name);
      return found === undefined ? { kind: 'base', name: 'void' } : { kind: found.kind, name: type.name };
    }
    default:
      return { kind: 'base', name: 'void' };
  }
}
