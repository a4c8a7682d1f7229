/**
 * The JSON documents of an image: index, manifest, configuration, and the list in a `docker save` archive. Pure and
 * bounded: they come from whoever made the image. What Mayfly does not need is not looked at.
 */
import { MayflyError } from '../../core/errors.ts';
import { isObject, parseStrict, printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { DIGEST } from './reference.ts';

export interface Descriptor {
  readonly mediaType: string;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  /** Bytes of what the digest is of. */
  readonly size: number;
  /** `os/architecture`; undefined when it is not said. */
  readonly platform: string | undefined;
  /** Its `org.opencontainers.image.ref.name`. */
  readonly tag: string | undefined;
}

export type Document =
  | { readonly kind: 'index'; readonly manifests: readonly Descriptor[] }
  | { readonly kind: 'manifest'; readonly config: Descriptor; readonly layers: readonly Descriptor[] };

/** What an image says about how it is run. */
export interface ImageConfig {
  /** `os/architecture`. */
  readonly platform: string;
  /** Digests of the layers as plain tar archives, the lowest first. */
  readonly diffIds: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
  /** Absolute, or empty. */
  readonly workingDir: string;
  readonly user: string;
  /** As in `8080/tcp`. */
  readonly exposedPorts: readonly string[];
  readonly labels: { readonly [name: string]: string };
}

const SCHEMA_1 = 'application/vnd.docker.distribution.manifest.v1';

/** Index or manifest, told apart by what is in it. Throws E_IMAGE_CORRUPT, E_IMAGE_TOO_LARGE, E_IMAGE_UNSUPPORTED. */
export function parseDocument(bytes: Buffer, what: string): Document {
  const value = parseObject(bytes, what);
  if ((typeof value.mediaType === 'string' && value.mediaType.startsWith(SCHEMA_1)) || value.schemaVersion === 1) {
    throw new MayflyError('E_IMAGE_UNSUPPORTED', `${what} is a manifest of Docker's first schema, replaced in 2016.`);
  }
  if (Array.isArray(value.manifests)) {
    return { kind: 'index', manifests: bounded(value.manifests, what).map((item) => toDescriptor(item, what)) };
  }
  if (!Array.isArray(value.layers)) throw corrupt(what, 'it has neither layers nor manifests');
  if (value.layers.length > limits.ociLayersMax) {
    throw new MayflyError(
      'E_IMAGE_TOO_LARGE',
      `${what} has ${value.layers.length} layers, over ${limits.ociLayersMax}.`,
    );
  }
  const layers = value.layers.map((item) => toDescriptor(item, what));
  return { kind: 'manifest', config: toDescriptor(value.config, what), layers };
}

/** Throws E_IMAGE_CORRUPT or E_IMAGE_TOO_LARGE. */
export function parseConfig(bytes: Buffer): ImageConfig {
  const what = 'the configuration';
  const value = parseObject(bytes, what);
  const config = isObject(value.config) ? value.config : {};
  const rootfs = isObject(value.rootfs) ? value.rootfs : {};
  const diffIds = texts(rootfs.diff_ids, `${what}'s rootfs.diff_ids`);
  if (!diffIds.every((id) => DIGEST.test(id))) throw corrupt(what, 'a layer has no SHA-256 digest');
  const env = texts(config.Env, `${what}'s Env`);
  if (!env.every((item) => /^[^=\0]+=[^\0]*$/.test(item)))
    throw corrupt(what, 'Env has something other than NAME=value');
  const workingDir = optionalText(config.WorkingDir, `${what}'s WorkingDir`);
  return {
    platform: `${optionalText(value.os, what)}/${optionalText(value.architecture, what)}`,
    diffIds,
    entrypoint: texts(config.Entrypoint, `${what}'s Entrypoint`),
    cmd: texts(config.Cmd, `${what}'s Cmd`),
    env,
    workingDir: workingDir.startsWith('/') ? workingDir : '',
    user: optionalText(config.User, `${what}'s User`),
    exposedPorts: isObject(config.ExposedPorts) ? bounded(Object.keys(config.ExposedPorts), what) : [],
    labels: toLabels(config.Labels, what),
  };
}

export interface ArchiveImage {
  /** Paths inside the archive. */
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

/** `manifest.json` of a `docker save` archive. Throws E_IMAGE_CORRUPT or E_IMAGE_TOO_LARGE. */
export function parseArchiveList(bytes: Buffer): readonly ArchiveImage[] {
  const what = 'manifest.json';
  const value = parseValue(bytes, what);
  if (!Array.isArray(value)) throw corrupt(what, 'it is not a list');
  return bounded(value, what).map((item) => {
    if (!isObject(item) || typeof item.Config !== 'string') throw corrupt(what, 'an image has no configuration');
    const layers = texts(item.Layers, what);
    if (layers.length > limits.ociLayersMax) {
      throw new MayflyError('E_IMAGE_TOO_LARGE', `${what} has ${layers.length} layers, over ${limits.ociLayersMax}.`);
    }
    return { config: item.Config, tags: texts(item.RepoTags, what), layers };
  });
}

function toDescriptor(value: unknown, what: string): Descriptor {
  if (!isObject(value)) throw corrupt(what, 'a descriptor is missing');
  const { mediaType, digest, size, platform, annotations } = value;
  if (typeof digest !== 'string' || !DIGEST.test(digest)) throw corrupt(what, 'a descriptor has no SHA-256 digest');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw corrupt(what, 'a descriptor has no size');
  if (size > limits.ociLayerBytesMax) {
    throw new MayflyError(
      'E_IMAGE_TOO_LARGE',
      `${what} names a blob of ${size} bytes, over ${limits.ociLayerBytesMax}.`,
    );
  }
  const { os, architecture } = isObject(platform) ? platform : {};
  const tag = isObject(annotations) ? annotations['org.opencontainers.image.ref.name'] : undefined;
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    digest,
    size,
    platform: typeof os === 'string' && typeof architecture === 'string' ? `${os}/${architecture}` : undefined,
    tag: typeof tag === 'string' ? tag : undefined,
  };
}

function toLabels(value: unknown, what: string): { readonly [name: string]: string } {
  if (!isObject(value)) return {};
  const pairs = bounded(Object.entries(value), what).filter(
    (pair): pair is [string, string] => typeof pair[1] === 'string',
  );
  return Object.fromEntries(pairs);
}

function parseObject(bytes: Buffer, what: string): { readonly [name: string]: unknown } {
  const value = parseValue(bytes, what);
  if (!isObject(value)) throw corrupt(what, 'it is not a JSON object');
  return value;
}

/** Deep enough for annotations of annotations; nothing that is read here is deeper than 4. */
const DEPTH_MAX = 32;

function parseValue(bytes: Buffer, what: string): unknown {
  const bytesMax = limits.ociDocumentBytesMax;
  const parsed = parseStrict(bytes, { bytesMax, depthMax: DEPTH_MAX });
  if (parsed.ok) return parsed.value;
  if (parsed.problem.kind !== 'size') throw corrupt(what, `it is not JSON (${parsed.problem.kind})`);
  throw new MayflyError('E_IMAGE_TOO_LARGE', `${what} has ${bytes.length} bytes, over ${bytesMax}.`);
}

function texts(value: unknown, what: string): readonly string[] {
  if (value === undefined || value === null) return [];
  const fine = (item: unknown): item is string => typeof item === 'string' && !item.includes('\0');
  if (!Array.isArray(value) || !value.every(fine)) throw corrupt(what, 'it is not a list of texts');
  return bounded(value, what);
}

function optionalText(value: unknown, what: string): string {
  if (value === undefined || value === null) return '';
  if (typeof value !== 'string' || value.includes('\0')) throw corrupt(what, 'a text is something else');
  return value;
}

function bounded<T>(list: readonly T[], what: string): readonly T[] {
  if (list.length <= limits.ociListMax) return list;
  throw new MayflyError('E_IMAGE_TOO_LARGE', `${what} has a list of ${list.length}, over ${limits.ociListMax}.`);
}

export function corrupt(what: string, why: string): MayflyError {
  return new MayflyError('E_IMAGE_CORRUPT', `${printableLine(what, 200)}: ${printableLine(why, 300)}.`);
}
