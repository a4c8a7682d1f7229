/**
 * Where the files of a build come to stand above a base: `/bin/x` is `/usr/bin/x` where the base has a link, and a
 * folder that the base has keeps its mode. What is in the base is asked in a clone of it (guest/probe), because its
 * file system may be anybody's, and this host does not read it. Pure.
 */
import { posix } from 'node:path';
import { MayflyError } from '../../core/errors.ts';
import { isObject, printableLine } from '../../core/json.ts';
import type { BuildItem, BuildItems } from './context.ts';

export interface Place {
  /** The path with all links of the base followed. */
  readonly real: string;
  readonly kind: 'folder' | 'program' | 'file' | 'none' | 'hidden';
  /** Of each folder on the way that the base has, the first one below the root. */
  readonly modes: readonly number[];
}

/** Undefined when it is no answer to `count` paths. */
export function parsePlaces(value: unknown, count: number): readonly Place[] | undefined {
  if (!isObject(value) || !Array.isArray(value.paths) || value.paths.length !== count) return undefined;
  const places = value.paths.map(toPlace);
  return places.every((place) => place !== undefined) ? places : undefined;
}

const KINDS = ['folder', 'program', 'file', 'none', 'hidden'] as const;

function toPlace(value: unknown): Place | undefined {
  if (!isObject(value) || typeof value.real !== 'string' || !Array.isArray(value.modes)) return undefined;
  const { real } = value;
  const kind = KINDS.find((name) => name === value.kind);
  const modes = value.modes.filter((mode) => typeof mode === 'number' && Number.isInteger(mode) && mode >= 0);
  const clean = posix.normalize(real) === real && real.startsWith('/') && !/[\p{Cc}\ufffd]/u.test(real);
  if (kind === undefined || !clean || modes.length !== value.modes.length) return undefined;
  return { real, kind, modes: modes.map((mode: number) => mode & 0o1777) };
}

/** Folders that have to be asked about before `placeItems` can be called. */
export function foldersOf(items: BuildItems): string[] {
  const folders = new Set<string>();
  for (const [path, { kind }] of items) {
    for (let at = kind === 'folder' ? path : posix.dirname(path); at !== '/'; at = posix.dirname(at)) folders.add(at);
  }
  return [...folders].sort();
}

/** The items at their real paths, with every folder on the way. Throws E_IMAGE_UNSAFE. */
export function placeItems(items: BuildItems, places: ReadonlyMap<string, Place>): BuildItems {
  const placed: BuildItems = new Map();
  for (const path of foldersOf(items)) {
    const place = places.get(path) ?? { real: path, kind: 'none', modes: [] };
    if (place.kind === 'hidden') throw refused(path, 'a function may not look into a folder on the way');
    if (place.kind === 'file' || place.kind === 'program') throw refused(path, 'the base has a file in its place');
    const parts = place.real.split('/').slice(1);
    for (let count = 1; count <= parts.length; count += 1) {
      const folder = `/${parts.slice(0, count).join('/')}`;
      const known = place.modes[count - 1];
      const own = items.get(path);
      const wanted = own?.kind === 'folder' && count === parts.length ? own.mode : 0o755;
      put(placed, folder, { kind: 'folder', mode: known ?? wanted });
    }
  }
  for (const [path, item] of items) {
    if (item.kind === 'folder') continue;
    const folder = posix.dirname(path);
    const real = folder === '/' ? '/' : (places.get(folder)?.real ?? folder);
    put(placed, posix.join(real, posix.basename(path)), item);
  }
  return placed;
}

/** A folder that is named twice keeps what was said of it first: nearer to the root there is more certainty. */
function put(placed: BuildItems, path: string, item: BuildItem): void {
  const before = placed.get(path);
  if (before === undefined) placed.set(path, item);
  else if (before.kind === 'folder' && item.kind === 'folder') return;
  else if (before.kind === 'folder' || item.kind === 'folder') throw refused(path, 'it is a folder and something else');
  else placed.set(path, item);
}

function refused(path: string, why: string): MayflyError {
  return new MayflyError('E_IMAGE_UNSAFE', `${printableLine(path, 200)} cannot be put there: ${why}.`);
}
