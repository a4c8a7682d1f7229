/**
 * An image in a registry, by the OCI distribution specification. Its layers come to the scratch folder once, because
 * they are read twice; a download that breaks goes on where it was. Nothing is believed but digests.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../core/errors.ts';
import { readAtMost } from '../../core/files.ts';
import { digestOf } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { credentialsIn } from './challenge.ts';
import type { Credentials } from './challenge.ts';
import { corrupt } from './documents.ts';
import type { Descriptor } from './documents.ts';
import { Passing, RegistryHttp } from './http.ts';
import type { HttpOptions } from './http.ts';
import { readFile } from './layout.ts';
import { DIGEST } from './reference.ts';
import type { RegistryReference } from './reference.ts';
import { collect, openManifest } from './source.ts';
import type { OpenedImage } from './source.ts';

export interface RegistryAccess extends Pick<HttpOptions, 'after' | 'plainHttp' | 'bounds'> {
  /** Docker's configuration with credentials; what is not there is no credentials, unless it was asked for. */
  readonly authFile: { readonly path: string; readonly required: boolean } | undefined;
}

export interface RegistryOptions extends RegistryAccess {
  readonly signal: AbortSignal;
  /** Folder for layers; whoever made it removes it. */
  readonly scratch: string;
  readonly say: (step: string) => void;
}

const DOCUMENTS = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
];

/** Rejects with E_IMAGE_SOURCE, E_IMAGE_AUTH, E_IMAGE_FETCH, E_INTERRUPTED and as `openManifest` does. */
export async function openRegistry(reference: RegistryReference, options: RegistryOptions): Promise<OpenedImage> {
  const { host, repository, target } = reference;
  const { authFile, say, signal, after, plainHttp, bounds = {} } = options;
  const credentials = authFile === undefined ? undefined : await readCredentials(authFile, host);
  const http = new RegistryHttp({ host, repository, credentials, plainHttp, signal, after, bounds });
  say(`asking ${host} for ${repository}`);
  const first = await fetchDocument(http, `manifests/${target}`);
  const digest = digestOf(first);
  if (DIGEST.test(target) && digest !== target) throw corrupt(target, `what ${host} gives for it is ${digest}`);
  const descriptor = { mediaType: '', digest, size: first.length, platform: undefined, tag: undefined };
  const opened = await openManifest(descriptor, {
    open: (wanted) => documentOf(http, wanted, wanted.digest === digest ? first : undefined),
  });
  let left = limits.ociLayerBytesMax;
  const layers: OpenedImage['layers'][number][] = [];
  for (const layer of opened.layers) {
    left -= layer.size;
    if (left < 0) {
      const most = limits.ociLayerBytesMax;
      throw new MayflyError('E_IMAGE_TOO_LARGE', `The layers have more than ${most} bytes, compressed.`);
    }
    const file = join(options.scratch, `layer-${layers.length}`);
    say(`downloading ${layer.name} (${(layer.size / 1e6).toFixed(1)} MB)`);
    await download(http, { ...layer, digest: layer.digest ?? '' }, file, bounds.registryBackoffMillis);
    layers.push({ ...layer, open: () => readFile(file, 0, layer.size) });
  }
  return { ...opened, layers };
}

async function readCredentials(
  { path, required }: NonNullable<RegistryAccess['authFile']>,
  host: string,
): Promise<Credentials | undefined> {
  try {
    return credentialsIn(await readAtMost(path, limits.registryConfigBytesMax), host, path);
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    if (!required) return undefined;
    throw new MayflyError('E_IMAGE_AUTH', `${path} cannot be read.`, { cause: thrown });
  }
}

async function fetchDocument(http: RegistryHttp, path: string): Promise<Buffer> {
  const { body } = await again(http, () => http.get(path, { accept: DOCUMENTS.join(', ') }));
  return await collect(body, limits.ociDocumentBytesMax, path);
}

/** Manifests have a place of their own; configurations are blobs like layers. */
async function* documentOf(http: RegistryHttp, wanted: Descriptor, known: Buffer | undefined): AsyncGenerator<Buffer> {
  if (known !== undefined) yield known;
  else if (DOCUMENTS.includes(wanted.mediaType)) yield await fetchDocument(http, `manifests/${wanted.digest}`);
  else yield* (await again(http, () => http.get(`blobs/${wanted.digest}`, {}))).body;
}

interface Wanted {
  readonly name: string;
  readonly digest: string;
  readonly size: number;
}

/** Rejects with E_IMAGE_CORRUPT when it is not what its digest says. */
async function download(http: RegistryHttp, wanted: Wanted, path: string, backoff: number | undefined): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    const state = { at: 0, hash: createHash('sha256') };
    await again(http, async () => await downloadRest(http, wanted, file, state), backoff);
    const found = `sha256:${state.hash.digest('hex')}`;
    if (state.at !== wanted.size) throw corrupt(wanted.name, `it has ${state.at} bytes instead of ${wanted.size}`);
    if (found !== wanted.digest) throw corrupt(wanted.name, `it is ${found} instead of ${wanted.digest}`);
  } finally {
    await file.close();
  }
}

async function downloadRest(
  http: RegistryHttp,
  { name, digest, size }: Wanted,
  file: FileHandle,
  state: { at: number; hash: ReturnType<typeof createHash> },
): Promise<void> {
  if (state.at === size && size > 0) return;
  const answer = await http.get(`blobs/${digest}`, state.at === 0 ? {} : { range: `bytes=${state.at}-` });
  const resumed = answer.status === 206 && answer.header('content-range').startsWith(`bytes ${state.at}-`);
  if (!resumed) {
    // All of it again, whatever was asked for.
    if (answer.status === 206) throw corrupt(name, 'the registry sends another part than it was asked for');
    await file.truncate(0);
    state.at = 0;
    state.hash = createHash('sha256');
  }
  for await (const chunk of answer.body) {
    if (state.at + chunk.length > size) throw corrupt(name, `it has more than the ${size} bytes that were announced`);
    await file.write(chunk, 0, chunk.length, state.at);
    state.hash.update(chunk);
    state.at += chunk.length;
  }
  if (state.at < size) throw new MayflyError('E_IMAGE_FETCH', `${name} was cut off.`, { cause: new Passing() });
}

/** What may pass is tried again, after a while that doubles. */
async function again<T>(http: RegistryHttp, work: () => Promise<T>, backoff?: number): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (thrown) {
      const passing = thrown instanceof MayflyError && thrown.cause instanceof Passing;
      if (!passing || attempt >= limits.registryTriesMax) throw thrown;
      await http.wait((backoff ?? limits.registryBackoffMillis) * 2 ** (attempt - 1));
    }
  }
}
