/**
 * What registries and their clients say about credentials, as text from strangers: the challenge in `WWW-Authenticate`,
 * the answer of a token server, and the file in which docker, podman and skopeo keep what they log in with. Pure.
 */
import { MayflyError } from '../../core/errors.ts';
import { isObject, parseStrict, printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';

export type Challenge =
  | { readonly kind: 'basic' }
  | { readonly kind: 'bearer'; readonly realm: string; readonly service: string };

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

const HEADER_UNITS_MAX = 4096;
/** `name="value"` or `name=value`; no backtracking over what has matched. */
const PARAMETER = /([A-Za-z0-9_-]{1,40})=(?:"([^"]{0,2000})"|([^\s",]{1,2000}))/g;

/** Undefined when it asks for something that Mayfly does not have. */
export function parseChallenge(header: string): Challenge | undefined {
  if (header.length > HEADER_UNITS_MAX) return undefined;
  const scheme = /^\s*([A-Za-z]+)(?:\s|$)/.exec(header)?.[1]?.toLowerCase();
  if (scheme === 'basic') return { kind: 'basic' };
  if (scheme !== 'bearer') return undefined;
  const found = new Map<string, string>();
  for (const [, name = '', quoted, bare = ''] of header.matchAll(PARAMETER)) {
    found.set(name.toLowerCase(), quoted ?? bare);
  }
  const realm = found.get('realm') ?? '';
  return URL.canParse(realm) ? { kind: 'bearer', realm, service: found.get('service') ?? '' } : undefined;
}

/** A token server's answer; undefined when there is no usable token in it. */
export function parseToken(bytes: Buffer): string | undefined {
  const parsed = parseStrict(bytes, { bytesMax: limits.registryTokenBytesMax, depthMax: 8 });
  if (!parsed.ok || !isObject(parsed.value)) return undefined;
  const token = parsed.value.token ?? parsed.value.access_token;
  return typeof token === 'string' && /^[\x21-\x7e]+$/.test(token) ? token : undefined;
}

/**
 * The credentials for a host in a docker configuration; undefined when it has none. Throws E_IMAGE_AUTH when the file
 * is none, or leaves the host's credentials to a program: Mayfly starts no program that a file names.
 */
export function credentialsIn(bytes: Buffer, host: string, file: string): Credentials | undefined {
  const bad = (why: string): MayflyError => new MayflyError('E_IMAGE_AUTH', `${printableLine(file, 200)}: ${why}.`);
  const parsed = parseStrict(bytes, { bytesMax: limits.registryConfigBytesMax, depthMax: 8 });
  if (!parsed.ok || !isObject(parsed.value)) throw bad('it is not a configuration of docker');
  const { auths, credHelpers, credsStore } = parsed.value;
  const names = [host, `https://${host}`, `https://${host}/v1/`, `https://${host}/v2/`];
  const entry = isObject(auths) ? names.map((name) => auths[name]).find(isObject) : undefined;
  if (typeof entry?.auth === 'string' && entry.auth !== '') {
    const text = Buffer.from(entry.auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon < 1 || /[\p{Cc}]/u.test(text)) throw bad(`the entry for ${host} is not NAME:PASSWORD in base64`);
    return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  const helper = isObject(credHelpers) ? credHelpers[host] : undefined;
  if (helper === undefined && (credsStore === undefined || entry === undefined)) return undefined;
  throw bad(`the credentials for ${host} are in a credential helper, and Mayfly runs none`);
}
