/**
 * The templates that lie on disk, and which of them go: those that nothing can ask for any more, because kernel, agent,
 * image or QEMU are others by now, and, when all together take more than their budget, those that nobody has used for
 * longest. What was used a moment ago stays: somebody may be making a clone of it.
 */
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createDisk } from '../core/disk.ts';
import { listOrNone } from '../core/files.ts';
import { limits } from '../core/limits.ts';

export interface StockedTemplate {
  readonly key: string;
  /** Name of its image. */
  readonly image: string;
  /** Disk space, and the most that it can take of the page cache; its holes count nothing. */
  readonly bytes: number;
  /** ms since 1970. */
  readonly usedAt: number;
}

/** Beside the sealed files of a template: its time is when it was last asked for. */
const USED = 'used';

/** `root`: MAYFLY_HOME/templates. What is not whole is not listed. */
export async function listStock(root: string): Promise<StockedTemplate[]> {
  const stock: StockedTemplate[] = [];
  for (const key of await listOrNone(root)) {
    const folder = join(root, key);
    try {
      const seal = JSON.parse(await readFile(join(folder, 'template.json'), 'utf8')) as { readonly image?: unknown };
      const [ram, state] = await Promise.all([stat(join(folder, 'ram')), stat(join(folder, 'state'))]);
      const used = await stat(join(folder, USED)).catch(() => ram);
      if (key.startsWith('building-') || typeof seal.image !== 'string') continue;
      stock.push({ key, image: seal.image, bytes: (ram.blocks + state.blocks) * BLOCK_BYTES, usedAt: used.mtimeMs });
    } catch {
      // A lock, something half built, or a folder that its next user removes.
    }
  }
  return stock;
}

/** Of stat(2), whatever the file system. */
const BLOCK_BYTES = 512;

export async function markUsed(folder: string, atMillis: number): Promise<void> {
  const path = join(folder, USED);
  const at = atMillis / 1000;
  await utimes(path, at, at).catch(async () => {
    await writeFile(path, '', { mode: 0o600 });
    await utimes(path, at, at);
  }).catch(() => {});
}

export interface Budget {
  /** All templates together. */
  readonly bytesMax: number;
  /** ms since 1970. */
  readonly now: number;
  /** Has just been built. */
  readonly keep: string;
}

/** The least recently used ones, as many as are over the budget; fewer when those that are left are in use. Pure. */
export function overBudget(stock: readonly StockedTemplate[], { bytesMax, now, keep }: Budget): StockedTemplate[] {
  let bytes = stock.reduce((sum, template) => sum + template.bytes, 0);
  const going: StockedTemplate[] = [];
  for (const template of stock.toSorted((a, b) => a.usedAt - b.usedAt || (a.key < b.key ? -1 : 1))) {
    if (bytes <= bytesMax) break;
    if (template.key === keep || now - template.usedAt < limits.templateRestMillis) continue;
    going.push(template);
    bytes -= template.bytes;
  }
  return going;
}

/** Resolves to those that are gone; one that is being built anew stays. */
export async function discard(root: string, going: readonly StockedTemplate[]): Promise<StockedTemplate[]> {
  const gone: StockedTemplate[] = [];
  for (const template of going) {
    const unlock = await createDisk().lock(join(root, `${template.key}.lock`), 1).catch(() => undefined);
    if (unlock === undefined) continue;
    try {
      await rm(join(root, template.key), { recursive: true, force: true });
      gone.push(template);
    } finally {
      await unlock();
    }
  }
  return gone;
}
