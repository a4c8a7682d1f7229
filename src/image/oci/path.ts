/**
 * Names in a layer, judged before anything else happens: a path is a list of plain names below the image's root, or the
 * whole image is refused. Nothing here, and nothing after it, gives such a path to the host's file system.
 */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';

export type EntryName =
  /** `''` is the root. */
  | { readonly kind: 'entry'; readonly path: string }
  /** The layers below lose this path and all that is in it. */
  | { readonly kind: 'whiteout'; readonly path: string }
  /** The layers below lose all that is in this folder. */
  | { readonly kind: 'opaque'; readonly path: string }
  /** Book-keeping of engines that are gone. */
  | { readonly kind: 'ignored' };

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** Throws E_IMAGE_UNSAFE and E_IMAGE_TOO_LARGE. */
export function parseEntryName(name: string): EntryName {
  const path = cleanPath(name);
  const slash = path.lastIndexOf('/');
  const folder = slash === -1 ? '' : path.slice(0, slash);
  const last = path.slice(slash + 1);
  if (folder.split('/').some((part) => part.startsWith(WHITEOUT))) throw unsafe(name, 'is inside a whiteout');
  if (!last.startsWith(WHITEOUT)) return { kind: 'entry', path };
  if (last === OPAQUE) return { kind: 'opaque', path: folder };
  if (last.startsWith(WHITEOUT + WHITEOUT)) return { kind: 'ignored' };
  const hidden = last.slice(WHITEOUT.length);
  if (hidden === '' || hidden === '.' || hidden === '..') throw unsafe(name, 'is a whiteout of nothing');
  return { kind: 'whiteout', path: folder === '' ? hidden : `${folder}/${hidden}` };
}

/** `./a//b/` as `a/b`. Throws E_IMAGE_UNSAFE and E_IMAGE_TOO_LARGE. */
export function cleanPath(name: string): string {
  if (name.includes('\0')) throw unsafe(name, 'has a NUL in its name');
  // The decoder's mark for bytes that are no text: two such names could become one.
  if (name.includes('\ufffd')) throw unsafe(name, 'has a name that is not UTF-8');
  if (name.startsWith('/')) throw unsafe(name, 'is an absolute path');
  if (Buffer.byteLength(name) > limits.ociPathBytesMax) throw tooLong(name, 'path', limits.ociPathBytesMax);
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  for (const part of parts) {
    if (part === '..') throw unsafe(name, 'leaves its folder');
    if (Buffer.byteLength(part) > limits.ociNameBytesMax) throw tooLong(name, 'name', limits.ociNameBytesMax);
  }
  return parts.join('/');
}

export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash === -1 ? '' : path.slice(0, slash);
}

export function unsafe(path: string, why: string): MayflyError {
  return new MayflyError('E_IMAGE_UNSAFE', `${printableLine(path, 200)} ${why}.`);
}

function tooLong(path: string, what: string, max: number): MayflyError {
  return new MayflyError('E_IMAGE_TOO_LARGE', `${printableLine(path, 80)}… has a ${what} of more than ${max} bytes.`);
}
