/**
 * Base images as the product sees them: what is on this machine, where its bytes are, and that they are intact.
 * `npm run setup` fills the store; nothing here writes to it.
 */
import { MayflyError } from '../core/errors.ts';
import { openStore } from './store.ts';
import type { Artefact, Store } from './store.ts';

/** A file that does not change under its path: another content has another digest and so another path. */
interface RepositoryFile {
  /** Absolute. */
  readonly path: string;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
}

interface Runtime {
  /** Started in the template: program (absolute path in the guest) and its arguments. */
  readonly argv: readonly string[];
  /** `NAME=value`, all there is. */
  readonly env: readonly string[];
}

export interface Image extends RepositoryFile {
  readonly name: string;
  readonly description: string;
  readonly bytes: number;
  /** Language runtime that waits warm in the template; null when the image only runs executables. */
  readonly runtime: Runtime | null;
  /** Packages that it was built from, `name=version`. */
  readonly packages: readonly string[];
}

export interface Repository {
  /** Linux, as QEMU's `-kernel` takes it. */
  readonly kernel: RepositoryFile;
  readonly initramfs: RepositoryFile;
  readonly images: {
    /** By name; their bytes have not been looked at. */
    list(): readonly Image[];
    /** Rejects with E_IMAGE_UNKNOWN and E_ARTEFACT_CORRUPT. */
    get(name: string): Promise<Image>;
  };
}

/** Rejects with E_SETUP_MISSING when kernel or initramfs has not been built, with E_ARTEFACT_CORRUPT when damaged. */
export async function openRepository(home: string): Promise<Repository> {
  const store = openStore(home);
  const kernel = await required(store, home, 'kernel');
  const initramfs = await required(store, home, 'initramfs');
  const images = new Map<string, { readonly image: Image; readonly artefact: Artefact }>();
  for (const name of await store.names()) {
    if (!name.startsWith(IMAGE_PREFIX)) continue;
    const artefact = await store.find(name);
    if (artefact === undefined) continue;
    const image = toImage(artefact);
    images.set(image.name, { image, artefact });
  }
  return Object.freeze({
    kernel,
    initramfs,
    images: Object.freeze({
      list: () => [...images.values()].map(({ image }) => image),
      async get(name: string) {
        const found = images.get(name);
        if (found === undefined) throw unknownImage(name, [...images.keys()]);
        await requireIntact(store, found.artefact);
        return found.image;
      },
    }),
  });
}

/** Artefacts of that prefix are base images. */
export const IMAGE_PREFIX = 'image-';

async function required(store: Store, home: string, name: string): Promise<RepositoryFile> {
  const artefact = await store.find(name);
  if (artefact === undefined) throw new MayflyError('E_SETUP_MISSING', `There is no ${name} in ${home}.`);
  await requireIntact(store, artefact);
  return { path: artefact.path, digest: artefact.digest };
}

async function requireIntact(store: Store, artefact: Artefact): Promise<void> {
  if (await store.intact(artefact, 'quick')) return;
  throw new MayflyError('E_ARTEFACT_CORRUPT', `${artefact.name} is not ${artefact.digest} any more: ${artefact.path}`);
}

function unknownImage(name: string, known: readonly string[]): MayflyError {
  if (known.length === 0) return new MayflyError('E_SETUP_MISSING', 'There is no base image on this machine yet.');
  return new MayflyError('E_IMAGE_UNKNOWN', `There is no image "${name}"; there are ${known.join(', ')}.`);
}

function toImage(artefact: Artefact): Image {
  const { description, runtime, packages } = artefact.meta;
  if (typeof description !== 'string' || !isTexts(packages) || !isRuntime(runtime)) {
    throw new MayflyError('E_ARTEFACT_CORRUPT', `The record of ${artefact.name} does not describe an image.`);
  }
  return Object.freeze({
    name: artefact.name.slice(IMAGE_PREFIX.length),
    path: artefact.path,
    digest: artefact.digest,
    bytes: artefact.bytes,
    description,
    runtime,
    packages,
  });
}

function isRuntime(value: unknown): value is Runtime | null {
  if (value === null) return true;
  return typeof value === 'object' && 'argv' in value && 'env' in value && isTexts(value.argv) && isTexts(value.env);
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}
