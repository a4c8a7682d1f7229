/** What set-up has built becomes an image: described by its recipe, signed with this machine's key, tagged latest. */
import { canonicalJson } from '../../src/core/json.ts';
import { IMAGE_PREFIX } from '../../src/image/repository.ts';
import type { ImageAdmin } from '../../src/image/admin.ts';
import type { ImageManifest, ImagePackage } from '../../src/image/manifest.ts';
import type { Artefact } from '../../src/image/store.ts';
import type { Recipe } from './recipe.ts';
import { need } from './workshop.ts';
import type { Workshop } from './workshop.ts';

/** The oldest kernel that all images run on: in Debian's, erofs and overlayfs have what they need. */
const KERNEL_MINIMUM = '6.1';

/** Costs a few small files and a signature check when nothing has changed. */
export async function publishImage(workshop: Workshop, recipe: Recipe, { catalogue }: ImageAdmin): Promise<void> {
  const artefact = await need(workshop, IMAGE_PREFIX + recipe.name);
  const manifest = manifestOf(recipe, artefact);
  const tag = `${recipe.name}:latest`;
  const current = await catalogue.find(tag).catch(() => undefined);
  if (current !== undefined && sameImage(current.manifest, manifest)) return;
  // Set-up decides what latest is: an older image that was built again from the same checkout is no downgrade.
  await catalogue.publish(manifest, tag, { allowDowngrade: true });
}

function sameImage(a: ImageManifest, b: ImageManifest): boolean {
  return canonicalJson({ ...a, created: '' }) === canonicalJson({ ...b, created: '' });
}

export function manifestOf(recipe: Recipe, artefact: Artefact): ImageManifest {
  const { name, description, runtime, classes, variant, serves, policy } = recipe;
  const { packages } = artefact.meta;
  return {
    manifestVersion: 1,
    name, description, classes, variant, runtime, serves, policy,
    command: null,
    kernel: { minimum: KERNEL_MINIMUM },
    platform: { os: 'linux', architecture: 'amd64' },
    fileSystem: { type: 'erofs', digest: artefact.digest, bytes: artefact.bytes },
    layers: [],
    packages: packagesOf(Array.isArray(packages) ? packages.map(String) : []),
    inputs: artefact.inputs,
    origin: 'setup',
    created: artefact.madeAt,
  };
}

/** `name=version` of Debian packages, and of the Node that Mayfly runs on. */
function packagesOf(lines: readonly string[]): ImagePackage[] {
  const found = lines.map((line) => {
    const at = line.indexOf('=');
    const [name, version] = [line.slice(0, at), line.slice(at + 1)];
    const purl = name === 'node'
      ? `pkg:generic/node@${encodeURIComponent(version)}`
      : `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=amd64`;
    return { name, version, purl };
  });
  return found.sort((a, b) => (a.purl < b.purl ? -1 : 1));
}
