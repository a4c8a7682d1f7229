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
import { openRegistry } from './registry.ts';
import type { RegistryAccess } from './registry.ts';
import type { OpenedImage } from './source.ts';
import { Tree } from './tree.ts';
import type { TreeNode } from './tree.ts';

export interface ImportOptions {
  readonly signal: AbortSignal;
  /** Folder of this import alone, in the file system of the store; it is removed when the import ends. */
  readonly scratch: string;
  /** Hears what takes seconds. */
  readonly say: (step: string) => void;
  /** How registries are reached; absent, none is. */
  readonly registry?: RegistryAccess;
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
    const opened = await openImage(reference, options);
    return await use(await merge(opened, options));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function openImage(reference: ImageReference, options: ImportOptions): Promise<OpenedImage> {
  switch (reference.kind) {
    case 'layout':
      return await openLayout(reference.folder, reference.tag);
    case 'archive':
      return await openArchive(reference.file, reference.tag);
    case 'registry': {
      const { registry, ...rest } = options;
      if (registry !== undefined) return await openRegistry(reference, { ...rest, ...registry });
      throw new MayflyError('E_IMAGE_UNSUPPORTED', `${reference.host} is a registry, and none can be reached here.`);
    }
  }
}

async function merge(opened: OpenedImage, options: ImportOptions): Promise<MergedImage> {
  const { layers, config, digest } = opened;
  const { nodes, ...merged } = await mergeLayers(layers, { ...options, above: false });
  return { ...merged, digest, command: commandOf(config, nodes), layers: layers.length };
}

export interface MergeOptions extends Pick<ImportOptions, 'signal' | 'scratch' | 'say'> {
  /** It is to lie above a base, which has what every clone needs. */
  readonly above: boolean;
}

export interface MergedLayers extends Pick<MergedImage, 'file' | 'entries' | 'bytes'> {
  readonly nodes: ReadonlyMap<string, TreeNode>;
}

/** Layers as one file system in the scratch folder. Rejects with E_IMAGE_* and E_INTERRUPTED. */
export async function mergeLayers(layers: readonly Layer[], options: MergeOptions): Promise<MergedLayers> {
  const { signal, scratch, say, above } = options;
  const { nodes } = await indexLayers(layers, signal, say);
  const plan = planImage(nodes, above);
  const { entries, bytes } = plan;
  say(`packing ${entries} files and folders`);
  const file = join(scratch, 'image.squashfs');
  await packPlan(plan, layers, file, signal);
  return { file, nodes, entries, bytes };
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
