/**
 * How people name an image that is somewhere else: a folder with an OCI layout, the file that `docker save` writes,
 * or a place in a registry. Pure. There is no default registry: a name never means a host that nobody wrote.
 */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';

export type ImageReference =
  | { readonly kind: 'layout'; readonly folder: string; readonly tag: string | undefined }
  | { readonly kind: 'archive'; readonly file: string; readonly tag: string | undefined }
  | RegistryReference;

export interface RegistryReference {
  readonly kind: 'registry';
  /** `host` or `host:port`. */
  readonly host: string;
  /** As in `library/debian`. */
  readonly repository: string;
  /** A tag, or `sha256:` and 64 hex digits. */
  readonly target: string;
}

const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?$/i;
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
export const DIGEST = /^sha256:[0-9a-f]{64}$/;
const REFERENCE_LETTERS_MAX = 4096;

/** Throws E_IMAGE_SOURCE. */
export function parseReference(text: string): ImageReference {
  if (text.length > REFERENCE_LETTERS_MAX || text.includes('\0')) throw unusable(text, 'it is too long or has a NUL');
  if (text.startsWith('oci:')) {
    const { path, tag } = splitTag(text.slice('oci:'.length));
    if (path === '') throw unusable(text, 'no folder is named');
    return { kind: 'layout', folder: path, tag };
  }
  if (text.startsWith('docker-archive:')) {
    const { path, tag } = splitArchive(text.slice('docker-archive:'.length));
    if (path === '') throw unusable(text, 'no file is named');
    return { kind: 'archive', file: path, tag };
  }
  if (text.startsWith('docker://')) return parseRegistry(text);
  throw unusable(text, 'it does not begin with oci:, docker-archive: or docker://');
}

/** `DIR:TAG`: a colon before the last slash belongs to the folder. */
function splitTag(text: string): { readonly path: string; readonly tag: string | undefined } {
  const colon = text.lastIndexOf(':');
  if (colon === -1 || text.indexOf('/', colon) !== -1) return { path: text, tag: undefined };
  return { path: text.slice(0, colon), tag: text.slice(colon + 1) };
}

/** `FILE:NAME:TAG`, as skopeo writes it: the name may have slashes, so the file ends at the first colon. */
function splitArchive(text: string): { readonly path: string; readonly tag: string | undefined } {
  const colon = text.indexOf(':');
  if (colon === -1) return { path: text, tag: undefined };
  return { path: text.slice(0, colon), tag: text.slice(colon + 1) };
}

function parseRegistry(text: string): RegistryReference {
  const rest = text.slice('docker://'.length);
  const slash = rest.indexOf('/');
  const host = slash === -1 ? '' : rest.slice(0, slash);
  if (!/[.:]|^localhost$/.test(host) || !HOST.test(host)) {
    throw unusable(text, 'it does not begin with the host of a registry, as in docker://HOST.EXAMPLE/NAME:TAG');
  }
  let name = rest.slice(slash + 1);
  let target = 'latest';
  const at = name.indexOf('@');
  if (at !== -1) {
    target = name.slice(at + 1);
    name = name.slice(0, at);
    if (!DIGEST.test(target)) throw unusable(text, 'what follows the @ is not a SHA-256 digest');
  }
  const colon = name.indexOf(':');
  if (colon !== -1) {
    const tag = name.slice(colon + 1);
    if (!TAG.test(tag)) throw unusable(text, 'the tag has letters that no tag has');
    if (at === -1) target = tag;
    name = name.slice(0, colon);
  }
  if (name.length > 255 || !REPOSITORY.test(name)) throw unusable(text, 'the name has letters that no name has');
  return { kind: 'registry', host, repository: name, target };
}

function unusable(text: string, why: string): MayflyError {
  return new MayflyError('E_IMAGE_SOURCE', `${printableLine(text, 200)}: ${why}.`);
}
