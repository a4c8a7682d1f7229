/**
 * An image from elsewhere becomes one of this machine's: read twice as a stream, merged by an index in memory, packed
 * as one read-only file system. The first pass decides everything and refuses; the second one writes.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../core/errors.ts';
import { limits } from '../../core/limits.ts';
import type { ImageCommand } from '../manifest.ts';
import { openArchive } from './archive.ts';
import { commandOf } from './command.ts';
import { openLayout } from './layout.ts';
import { readLayer } from './layer.ts';
import type { Layer } from './layer.ts';
import { packPlan } from './pack.ts';
import { planImage } from './plan.ts';
import type { ImageReference } from './reference.ts';
import type { OpenedImage } from './source.ts';
import { Tree } from './tree.ts';

export interface ImportOptions {
  readonly signal: AbortSignal;
  /** Folder of this import alone, in the file system of the store; it is removed when the import ends. */
  readonly scratch: string;
  /** Hears what takes seconds. */
  readonly say: (step: string) => void;
}

export interface MergedImage {
  /** A finished squashfs file system in the scratch folder. */
  readonly file: string;
  /** SHA-256 of manifest or configuration: what was imported. */
  readonly digest: string;
  /** Null when the image names none. */
  readonly command: ImageCommand | null;
  readonly layers: number;
  /** Folders, files and links. */
  readonly entries: number;
  /** Of all files. */
  readonly bytes: number;
}

/** Merges an image and hands it to `use`, which moves the file away. Rejects with E_IMAGE_* and E_INTERRUPTED. */
export async function importImage<T>(
  reference: ImageReference,
  options: ImportOptions,
  use: (image: MergedImage) => Promise<T>,
): Promise<T> {
  const { scratch } = options;
  await mkdir(scratch, { recursive: true, mode: 0o700 });
  try {
    const opened = await openImage(reference);
    return await use(await merge(opened, options));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function openImage(reference: ImageReference): Promise<OpenedImage> {
  switch (reference.kind) {
    case 'layout':
      return await openLayout(reference.folder, reference.tag);
    case 'archive':
      return await openArchive(reference.file, reference.tag);
    case 'registry':
      throw new MayflyError('E_IMAGE_UNSUPPORTED', `${reference.host} is a registry, and Mayfly pulls from none yet.`, {
        remedy: 'Copy the image first: `skopeo copy docker://HOST/NAME:TAG oci:DIR:TAG`, then import `oci:DIR:TAG`.',
      });
  }
}

async function merge(opened: OpenedImage, { signal, scratch, say }: ImportOptions): Promise<MergedImage> {
  const { layers, config, digest } = opened;
  const tree = await indexLayers(layers, signal, say);
  const plan = planImage(tree.nodes);
  const command = commandOf(config, tree.nodes);
  const { entries, bytes } = plan;
  say(`packing ${entries} files and folders`);
  const file = join(scratch, 'image.squashfs');
  await packPlan(plan, layers, file, signal);
  return { file, digest, command, layers: layers.length, entries, bytes };
}

/** The first pass, from the top down. */
async function indexLayers(layers: readonly Layer[], signal: AbortSignal, say: (step: string) => void): Promise<Tree> {
  const tree = new Tree(layers.length);
  const budget = { bytesLeft: limits.ociBytesMax };
  for (const layer of layers.toReversed()) {
    say(`reading ${layer.name}`);
    await readLayer(layer, budget, signal, (item, ordinal) => {
      if (item.kind === 'entry') tree.add(item.entry, ordinal);
      else if (item.kind === 'whiteout') tree.whiteout(item.path);
      else if (item.kind === 'opaque') tree.opaque(item.path);
    });
    tree.endLayer();
  }
  return tree;
}
