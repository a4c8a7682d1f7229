/**
 * Initial RAM file systems in cpio's `newc` format, written here because the same content must give the same bytes
 * everywhere: fixed times, owners, inode numbers and order.
 */

export type CpioEntry =
  | { readonly kind: 'folder'; readonly path: string }
  /** `path` is relative to the root, without a leading slash. */
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Buffer };

const FOLDER = 0o040755;
const FILE = 0o100000;

/** An archive of the entries in the order given; folders must come before what is in them. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    const content = entry.kind === 'file' ? entry.content : Buffer.alloc(0);
    const mode = entry.kind === 'file' ? FILE | (entry.mode & 0o777) : FOLDER;
    parts.push(header(entry.path, index + 1, mode, entry.kind === 'file' ? 1 : 2, content.length), padded(content));
  });
  parts.push(header('TRAILER!!!', 0, 0, 1, 0));
  return Buffer.concat(parts);
}

/** 6 octets of magic and 13 numbers of 8 hex digits, then the name and NUL, filled up to a multiple of 4. */
function header(path: string, inode: number, mode: number, links: number, bytes: number): Buffer {
  const name = Buffer.from(`${path}\0`);
  const [uid, gid, mtime, device] = [0, 0, 0, 0];
  const numbers = [inode, mode, uid, gid, links, mtime, bytes, device, device, device, device, name.length, 0];
  const text = `070701${numbers.map((number) => number.toString(16).toUpperCase().padStart(8, '0')).join('')}`;
  return padded(Buffer.concat([Buffer.from(text), name]));
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}
