/** Tables of contents of zip, tar and gzip, read without unpacking anything. Pure, bounded, and fuzzed. */
import { limits } from '../core/limits.ts';

export interface ArchiveListing {
  readonly members: readonly string[];
  /** Sum of what the members claim to be when unpacked; a claim of whoever made it. */
  readonly unpackedBytes: number;
  readonly encrypted: boolean;
  /** Two members begin at the same place: the trick of a bomb that is small and flat. */
  readonly overlapping: boolean;
  readonly truncated: boolean;
}

const NOTHING: ArchiveListing = Object.freeze({
  members: [],
  unpackedBytes: 0,
  encrypted: false,
  overlapping: false,
  truncated: false,
});
const NAME_BYTES_MAX = 512;

/** `type`: the media type by content. Damaged archives list what can be read. */
export function listArchive(bytes: Buffer, type: string): ArchiveListing {
  if (bytes.length > 4 && bytes.readUInt32LE(0) === 0x0403_4b50) return listZip(bytes);
  if (type === 'application/x-tar') return listTar(bytes);
  if (type === 'application/gzip' && bytes.length >= 18) {
    return { ...NOTHING, unpackedBytes: bytes.readUInt32LE(bytes.length - 4) };
  }
  return NOTHING;
}

const CENTRAL = 0x0201_4b50;
const END = 0x0605_4b50;
const END_BYTES = 22;
const CENTRAL_BYTES = 46;

function listZip(bytes: Buffer): ArchiveListing {
  let at = centralDirectory(bytes);
  if (at === undefined) return NOTHING;
  const members: string[] = [];
  const starts = new Set<number>();
  let [unpackedBytes, encrypted, overlapping] = [0, false, false];
  while (at + CENTRAL_BYTES <= bytes.length && bytes.readUInt32LE(at) === CENTRAL) {
    if (members.length >= limits.archiveMembersMax)
      return { members, unpackedBytes, encrypted, overlapping, truncated: true };
    const nameBytes = bytes.readUInt16LE(at + 28);
    const start = bytes.readUInt32LE(at + 42);
    members.push(bytes.toString('utf8', at + CENTRAL_BYTES, at + CENTRAL_BYTES + Math.min(nameBytes, NAME_BYTES_MAX)));
    // 0xffffffff: the true size is in a ZIP64 field, and at least this large.
    unpackedBytes += bytes.readUInt32LE(at + 24);
    encrypted ||= (bytes.readUInt16LE(at + 8) & 1) === 1;
    overlapping ||= starts.has(start) && start !== 0xffff_ffff;
    starts.add(start);
    at += CENTRAL_BYTES + nameBytes + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
  }
  return { members, unpackedBytes, encrypted, overlapping, truncated: false };
}

/** The last end record; its comment has at most 64 KiB. */
function centralDirectory(bytes: Buffer): number | undefined {
  const first = Math.max(0, bytes.length - END_BYTES - 0xffff);
  for (let at = bytes.length - END_BYTES; at >= first; at--) {
    if (bytes.readUInt32LE(at) === END) return bytes.readUInt32LE(at + 16);
  }
  return undefined;
}

const BLOCK = 512;

export interface TarMember {
  readonly name: string;
  /** Where its content is, as far as the archive has it. */
  readonly start: number;
  readonly size: number;
  readonly isFile: boolean;
}

/** Headers of the classic and the ustar form, one after another, until the first that makes no sense. */
export function* tarMembers(bytes: Buffer): Generator<TarMember> {
  for (let at = 0; at + BLOCK <= bytes.length; ) {
    const name = text(bytes, at, 100);
    if (name === '') return;
    const prefix = bytes.toString('latin1', at + 257, at + 262) === 'ustar' ? text(bytes, at + 345, 155) : '';
    const size = Number.parseInt(text(bytes, at + 124, 12).trim() || '0', 8);
    if (!Number.isSafeInteger(size) || size < 0) return;
    const isFile = bytes[at + 156] === 0x30 || bytes[at + 156] === 0;
    yield { name: prefix === '' ? name : `${prefix}/${name}`, start: at + BLOCK, size, isFile };
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
}

function listTar(bytes: Buffer): ArchiveListing {
  const members: string[] = [];
  let unpackedBytes = 0;
  for (const { name, size } of tarMembers(bytes)) {
    if (members.length >= limits.archiveMembersMax) return { ...NOTHING, members, unpackedBytes, truncated: true };
    members.push(name);
    unpackedBytes += size;
  }
  return { ...NOTHING, members, unpackedBytes };
}

function text(bytes: Buffer, start: number, length: number): string {
  const field = bytes.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? length : end);
}
