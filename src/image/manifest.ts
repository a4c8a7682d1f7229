/**
 * What an image says about itself: which functions it is for, how they are started, which bytes it is made of and where
 * those came from. The digest of a manifest stands for the whole image, because every file system in it is a digest.
 *
 * A manifest may come from a stranger, so it is parsed here without I/O, within bounds, and only in its canonical form:
 * one image has one text, and what was signed is what is read (docs/FORMATS.md, "Image manifest").
 */
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf, parseStrict, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';

/** What a function does; profiles choose an image by it. */
export const functionClasses = Object.freeze([
  'analysis', 'compute', 'database', 'document', 'image', 'shell', 'web',
] as const);

export type FunctionClass = (typeof functionClasses)[number];

export interface ImageRuntime {
  /** Started in the template: program (absolute path in the guest) and its arguments. */
  readonly argv: readonly string[];
  /** `NAME=value`, all there is. */
  readonly env: readonly string[];
}

/** What runs when a caller of executables names no program: an imported image's own command. */
export interface ImageCommand {
  /** Absolute program and arguments that always stand before a caller's; may be empty. */
  readonly entrypoint: readonly string[];
  /** Arguments, or the whole command, unless the caller gives others. */
  readonly cmd: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
}

export interface ImageFileSystem {
  readonly type: 'erofs' | 'squashfs';
  /** `sha256:` and 64 hex digits over the file system's bytes. */
  readonly digest: string;
  readonly bytes: number;
}

/** A component of CycloneDX 1.6, as far as it says what was installed. */
export interface ImagePackage {
  readonly name: string;
  readonly version: string;
  /** As in `pkg:deb/debian/libc6@2.36-9?arch=amd64`. */
  readonly purl: string;
}

export interface ImageManifest {
  readonly manifestVersion: 1;
  readonly name: string;
  readonly description: string;
  /** Sorted, at least one. */
  readonly classes: readonly FunctionClass[];
  /** `strict`: fewer programs and a tighter policy, for events that are a threat. */
  readonly variant: 'standard' | 'strict';
  /** Language runtime that waits warm in the template; null when the image only runs executables. */
  readonly runtime: ImageRuntime | null;
  /** Null when there is no program that would be meant. */
  readonly command: ImageCommand | null;
  /** Sorted. Content types (`image/png`, `image/*`) and CloudEvents types (a trailing `*` matches any rest). */
  readonly serves: { readonly contentTypes: readonly string[]; readonly eventTypes: readonly string[] };
  /** Names of the policy classes of issue 4. */
  readonly policy: { readonly seccomp: string; readonly appArmor: string };
  /** The oldest guest kernel that it runs on, as in `6.1`. */
  readonly kernel: { readonly minimum: string };
  readonly platform: { readonly os: 'linux'; readonly architecture: 'amd64' };
  /** The base: it boots alone. */
  readonly fileSystem: ImageFileSystem;
  /** Read-only file systems above the base, the lowest first: what images of one base do not share. */
  readonly layers: readonly ImageFileSystem[];
  /** Sorted by purl. */
  readonly packages: readonly ImagePackage[];
  /** Digest over everything that it was built from. */
  readonly inputs: string;
  readonly origin: 'setup' | 'import' | 'build';
  /** ISO 8601, UTC. */
  readonly created: string;
}

/** The one text of a manifest. Throws E_IMAGE_MANIFEST for what `parseManifest` would not read. */
export function encodeManifest(manifest: ImageManifest): Buffer {
  const bytes = Buffer.from(canonicalJson(checked(manifest)));
  if (bytes.length > limits.imageManifestBytesMax) throw refused(`it has ${bytes.length} bytes`);
  return bytes;
}

/** `sha256:` and 64 hex digits: the name of the whole image. */
export function manifestDigest(bytes: Buffer): string {
  return digestOf(bytes);
}

/** Throws E_IMAGE_MANIFEST, naming the first field that is wrong. */
export function parseManifest(bytes: Buffer): ImageManifest {
  const bounds = { bytesMax: limits.imageManifestBytesMax, depthMax: limits.imageManifestDepthMax };
  const parsed = parseStrict(bytes, bounds);
  if (!parsed.ok) throw refused(`its JSON: ${parsed.problem.kind}`);
  const manifest = checked(parsed.value);
  if (canonicalJson(manifest) !== parsed.text) throw refused('it is not in canonical form (RFC 8785)');
  return manifest;
}

/** A name that a file may have and a person can read: images, policy classes. */
export function isImageName(text: string): boolean {
  return NAME.test(text);
}

export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

const NAME = /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/;
const NAME_UNITS_MAX = 63;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const CONTENT_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]*\/(?:\*|[a-z0-9][a-z0-9!#$&^_.+-]*)$/;
const EVENT_TYPE = /^[A-Za-z0-9][A-Za-z0-9._/-]*\*?$/;
const PURL = /^pkg:[a-z][a-z0-9.+-]*\/[\x21-\x7e]+$/;
const KERNEL = /^[1-9][0-9]?\.(?:0|[1-9][0-9]?)$/;
const CREATED = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$/;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*=/;

function checked(value: unknown): ImageManifest {
  const it = fields(value, 'it', [
    'manifestVersion', 'name', 'description', 'classes', 'variant', 'runtime', 'command', 'serves', 'policy', 'kernel',
    'platform', 'fileSystem', 'layers', 'packages', 'inputs', 'origin', 'created',
  ]);
  if (it['manifestVersion'] !== 1) throw refused('manifestVersion is not 1');
  const serves = fields(it['serves'], 'serves', ['contentTypes', 'eventTypes']);
  const policy = fields(it['policy'], 'policy', ['seccomp', 'appArmor']);
  const kernel = fields(it['kernel'], 'kernel', ['minimum']);
  const platform = fields(it['platform'], 'platform', ['os', 'architecture']);
  const classes = list(it['classes'], 'classes', limits.imageListMax, (item, at) => oneOf(item, at, functionClasses));
  if (classes.length === 0) throw refused('classes is empty');
  const created = text(it['created'], 'created', CREATED);
  if (Number.isNaN(Date.parse(created))) throw refused('created is no time');
  return {
    manifestVersion: 1,
    name: nameIn(it['name'], 'name'),
    description: text(it['description'], 'description'),
    classes: sorted(classes, 'classes'),
    variant: oneOf(it['variant'], 'variant', ['standard', 'strict']),
    runtime: it['runtime'] === null ? null : runtime(it['runtime']),
    command: it['command'] === null ? null : command(it['command']),
    serves: {
      contentTypes: sorted(texts(serves['contentTypes'], 'serves.contentTypes', CONTENT_TYPE), 'serves.contentTypes'),
      eventTypes: sorted(texts(serves['eventTypes'], 'serves.eventTypes', EVENT_TYPE), 'serves.eventTypes'),
    },
    policy: {
      seccomp: nameIn(policy['seccomp'], 'policy.seccomp'),
      appArmor: nameIn(policy['appArmor'], 'policy.appArmor'),
    },
    kernel: { minimum: text(kernel['minimum'], 'kernel.minimum', KERNEL) },
    platform: {
      os: oneOf(platform['os'], 'platform.os', ['linux']),
      architecture: oneOf(platform['architecture'], 'platform.architecture', ['amd64']),
    },
    fileSystem: fileSystem(it['fileSystem'], 'fileSystem'),
    layers: list(it['layers'], 'layers', limits.imageLayersMax - 1, fileSystem),
    packages: packages(it['packages']),
    inputs: text(it['inputs'], 'inputs', DIGEST),
    origin: oneOf(it['origin'], 'origin', ['setup', 'import', 'build']),
    created,
  };
}

function runtime(value: unknown): ImageRuntime {
  const it = fields(value, 'runtime', ['argv', 'env']);
  const argv = texts(it['argv'], 'runtime.argv');
  if (argv[0]?.startsWith('/') !== true) throw refused('runtime.argv does not begin with an absolute path');
  return { argv, env: texts(it['env'], 'runtime.env', VARIABLE) };
}

function command(value: unknown): ImageCommand {
  const it = fields(value, 'command', ['entrypoint', 'cmd', 'env']);
  const entrypoint = texts(it['entrypoint'], 'command.entrypoint');
  const cmd = texts(it['cmd'], 'command.cmd');
  const program = entrypoint[0] ?? cmd[0];
  if (program?.startsWith('/') !== true) throw refused('command does not begin with an absolute path');
  return { entrypoint, cmd, env: texts(it['env'], 'command.env', VARIABLE) };
}

function fileSystem(value: unknown, at: string): ImageFileSystem {
  const it = fields(value, at, ['type', 'digest', 'bytes']);
  const bytes = it['bytes'];
  const max = limits.imageFileSystemBytesMax;
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 1 || bytes > max) {
    throw refused(`${at}.bytes is not between 1 and ${max}`);
  }
  return {
    type: oneOf(it['type'], `${at}.type`, ['erofs', 'squashfs']),
    digest: text(it['digest'], `${at}.digest`, DIGEST),
    bytes,
  };
}

function packages(value: unknown): ImagePackage[] {
  const found = list(value, 'packages', limits.imagePackagesMax, (item, at) => {
    const it = fields(item, at, ['name', 'version', 'purl']);
    return {
      name: text(it['name'], `${at}.name`),
      version: text(it['version'], `${at}.version`),
      purl: text(it['purl'], `${at}.purl`, PURL),
    };
  });
  sorted(found.map(({ purl }) => purl), 'packages');
  return found;
}

// ---- shapes -------------------------------------------------------------------------------------------------------

/** Exactly these fields: a misspelt or unknown one would be something that its author believes to be in force. */
function fields(value: unknown, at: string, names: readonly string[]): { readonly [name: string]: unknown } {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refused(`${at} is not an object`);
  for (const name of names) if (!Object.hasOwn(value, name)) throw refused(`${at} has no field ${name}`);
  const more = Object.keys(value).find((name) => !names.includes(name));
  if (more !== undefined) throw refused(`${at} has an unknown field ${printableLine(more, 60)}`);
  return value as { readonly [name: string]: unknown };
}

function text(value: unknown, at: string, form?: RegExp): string {
  if (typeof value !== 'string' || value === '' || value.length > limits.imageTextUnits) {
    throw refused(`${at} is not a text of 1 to ${limits.imageTextUnits} characters`);
  }
  // What is printed and passed to a guest as C strings: no control character has a place in it.
  if (printableLine(value, limits.imageTextUnits) !== value) throw refused(`${at} has control characters`);
  if (form !== undefined && !form.test(value)) throw refused(`${at} is "${printableLine(value, 100)}"`);
  return value;
}

function nameIn(value: unknown, at: string): string {
  const name = text(value, at, NAME);
  if (name.length > NAME_UNITS_MAX) throw refused(`${at} is longer than ${NAME_UNITS_MAX} characters`);
  return name;
}

function oneOf<const T extends string>(value: unknown, at: string, allowed: readonly T[]): T {
  const found = allowed.find((item) => item === value);
  if (found === undefined) throw refused(`${at} is none of ${allowed.join(', ')}`);
  return found;
}

function list<T>(value: unknown, at: string, most: number, item: (value: unknown, at: string) => T): T[] {
  if (!Array.isArray(value)) throw refused(`${at} is not a list`);
  if (value.length > most) throw refused(`${at} has ${value.length} entries, at most ${most} are allowed`);
  return value.map((entry: unknown, index) => item(entry, `${at}[${index}]`));
}

function texts(value: unknown, at: string, form?: RegExp): string[] {
  return list(value, at, limits.imageListMax, (item, place) => text(item, place, form));
}

/** Order without meaning has one form, and nothing is said twice. */
function sorted<T extends string>(items: readonly T[], at: string): readonly T[] {
  const wrong = items.findIndex((item, index) => index > 0 && item <= (items[index - 1] ?? ''));
  if (wrong >= 0) throw refused(`${at}[${wrong}] is out of order or there twice`);
  return items;
}

function refused(problem: string): MayflyError {
  return new MayflyError('E_IMAGE_MANIFEST', `The image manifest is refused: ${problem}.`);
}
