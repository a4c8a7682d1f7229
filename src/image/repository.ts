/**
 * Base images as the product sees them: what is on this machine, where its bytes are, and that they are intact, signed
 * and fit for this machine. Nothing here writes; `catalogue.ts` does.
 */
import { createDisk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf } from '../core/json.ts';
import { openCatalogue } from './catalogue.ts';
import type { Catalogue, TrustPolicy } from './catalogue.ts';
import type { Envelope } from './envelope.ts';
import { openKeys } from './keys.ts';
import type { ImageManifest, ImageRuntime } from './manifest.ts';
import { openStore } from './store.ts';
import type { Store } from './store.ts';

/** A file that does not change under its path: another content has another digest and so another path. */
interface RepositoryFile {
  /** Absolute. */
  readonly path: string;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
}

/** Path and digest are those of the base file system. */
export interface Image extends RepositoryFile {
  /** File systems above the base, the lowest first. */
  readonly layers: readonly RepositoryFile[];
  /** Stands for base and layers together: the base's own digest when there are no layers. */
  readonly contentDigest: string;
  readonly name: string;
  readonly description: string;
  readonly bytes: number;
  /** Language runtime that waits warm in the template; null when the image only runs executables. */
  readonly runtime: ImageRuntime | null;
  /** Packages that it was built from, `name=version`. */
  readonly packages: readonly string[];
  readonly manifest: ImageManifest;
  /** Stands for the whole image. */
  readonly manifestDigest: string;
}

export interface Repository {
  /** Linux, as QEMU's `-kernel` takes it. */
  readonly kernel: RepositoryFile;
  readonly initramfs: RepositoryFile;
  /** The program that examines images from inside. Rejects as `openRepository` does. */
  probe(): Promise<RepositoryFile>;
  readonly images: {
    /** What `name` alone means, where a trusted key has signed it, by name; their bytes have not been looked at. */
    list(): readonly Image[];
    /**
     * By `name`, `name:tag` or digest of the manifest. Rejects with E_IMAGE_UNKNOWN, E_SETUP_MISSING, E_IMAGE_UNSIGNED,
     * E_IMAGE_SIGNATURE, E_IMAGE_MANIFEST, E_IMAGE_INCOMPATIBLE and E_ARTEFACT_CORRUPT.
     */
    get(reference: string, policy?: TrustPolicy): Promise<Image>;
  };
}

/** Rejects with E_SETUP_MISSING when kernel or initramfs has not been built, with E_ARTEFACT_CORRUPT when damaged. */
export async function openRepository(home: string): Promise<Repository> {
  const store = openStore(home);
  const kernel = await required(store, home, 'kernel');
  const initramfs = await required(store, home, 'initramfs');
  const catalogue = openReadOnly(home);
  const { images } = await catalogue.list();
  const named = images.filter(({ manifest, trust, tags }) => {
    return trust.kind === 'signed' && tags.includes(`${manifest.name}:latest`);
  });
  const listed = named.map((image) => toImage(catalogue, image));
  return Object.freeze({
    kernel: { path: kernel.path, digest: kernel.digest },
    initramfs: { path: initramfs.path, digest: initramfs.digest },
    probe: async () => await required(store, home, 'probe'),
    images: Object.freeze({
      list: () => listed,
      async get(reference: string, policy: TrustPolicy = {}) {
        const envelope = await catalogue.find(reference, policy);
        requireFit(envelope, kernel.release);
        await catalogue.requireIntact(envelope, 'quick');
        return toImage(catalogue, envelope);
      },
    }),
  });
}

/** Artefacts of that prefix are base images that set-up has built. */
export const IMAGE_PREFIX = 'image-';

/** Reading needs no randomness and no lock. */
function openReadOnly(home: string): Catalogue {
  const keys = openKeys(home, {
    bytes: () => {
      throw new Error('a reader of the repository makes no keys');
    },
  });
  return openCatalogue({ home, keys, disk: createDisk() });
}

async function required(
  store: Store,
  home: string,
  name: string,
): Promise<RepositoryFile & { readonly release: string }> {
  const artefact = await store.find(name);
  if (artefact === undefined) throw new MayflyError('E_SETUP_MISSING', `There is no ${name} in ${home}.`);
  if (!(await store.intact(artefact, 'quick'))) {
    throw new MayflyError('E_ARTEFACT_CORRUPT', `${name} is not ${artefact.digest} any more: ${artefact.path}`);
  }
  const { release } = artefact.meta;
  return { path: artefact.path, digest: artefact.digest, release: typeof release === 'string' ? release : '' };
}

/** The machine has the kernel that set-up has chosen. */
function requireFit({ manifest }: Envelope, release: string): void {
  const { name, kernel } = manifest;
  const order = (version: string): number => {
    const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
    return major * 1000 + minor;
  };
  // A kernel that does not say its release is one of a test or of an older set-up: the boot decides.
  if (release === '' || order(release) >= order(kernel.minimum)) return;
  throw new MayflyError('E_IMAGE_INCOMPATIBLE', `${name} needs Linux ${kernel.minimum}, and this is ${release}.`);
}

function toImage(catalogue: Catalogue, { digest, manifest }: Pick<Envelope, 'digest' | 'manifest'>): Image {
  const { name, description, fileSystem, layers, runtime, packages } = manifest;
  const digests = [fileSystem, ...layers].map((it) => it.digest);
  return Object.freeze({
    name,
    path: catalogue.blobs.path(fileSystem.digest),
    digest: fileSystem.digest,
    layers: layers.map((it) => ({ path: catalogue.blobs.path(it.digest), digest: it.digest })),
    contentDigest: layers.length === 0 ? fileSystem.digest : digestOf(canonicalJson(digests)),
    bytes: [fileSystem, ...layers].reduce((sum, it) => sum + it.bytes, 0),
    description,
    runtime,
    packages: packages.map((it) => `${it.name}=${it.version}`),
    manifest,
    manifestDigest: digest,
  });
}
