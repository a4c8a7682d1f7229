/** `MAYFLY_HOME/intel/feeds.yaml`: which feeds there are. Every key is known or refused, with its line. */
import { isAbsolute, join } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf, isObject, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Feed, FeedAuth, FeedFormat, FeedsConfig } from './feed.ts';
import { indicatorKinds, normalise, severities } from './indicator.ts';
import { threatLevels } from '../profile/levels.ts';
import { parseMinisignKey } from './minisign.ts';
import type { FindingKind } from './vet.ts';

const FORMATS: readonly FeedFormat[] = ['lines', 'hosts', 'csv', 'stix', 'taxii', 'misp', 'misp-feed'];
const TOLERABLE: readonly FindingKind[] = ['private', 'top-domain', 'too-wide', 'protected'];
const AUTH_KINDS: readonly FeedAuth['kind'][] = ['basic', 'bearer', 'header'];
const FEED_KEYS = [
  'name',
  'format',
  'url',
  'path',
  'kind',
  'column',
  'timeColumn',
  'separator',
  'confidence',
  'severity',
  'labels',
  'maxAge',
  'auth',
  'sha256',
  'tolerate',
  'deny',
  'minisign',
  'every',
  'reliability',
];

type Fields = Readonly<Record<string, unknown>>;

/** `folder`: what relative paths are relative to. Throws E_INTEL_CONFIG. */
export function parseConfig(text: string, folder: string): FeedsConfig {
  const lines = new LineCounter();
  // No aliases: a few lines of them can stand for gigabytes.
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, merge: false });
  const [error] = document.errors;
  if (error !== undefined) throw invalid(`line ${lines.linePos(error.pos[0]).line}: ${error.message.split('\n')[0]}`);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 0 }) as unknown;
  } catch (cause) {
    throw invalid((cause as Error).message);
  }
  if (value === null || value === undefined) return { feeds: [], protect: [], whenDegraded: 'guarded' };
  if (!isObject(value)) throw invalid('it must be a map with `feeds` and `protect`');
  known(value, ['feeds', 'protect', 'whenDegraded'], 'the file');
  const list = value['feeds'] ?? [];
  if (!Array.isArray(list) || list.length > limits.intelFeedsMax) {
    throw invalid(`\`feeds\` must be a list of at most ${limits.intelFeedsMax}`);
  }
  const feeds = (list as unknown[]).map((item, at) => {
    const node = document.getIn(['feeds', at], true) as { range?: readonly number[] } | undefined;
    return readFeed(item, folder, `line ${lines.linePos(node?.range?.[0] ?? 0).line}`);
  });
  const names = feeds.map(({ name }) => name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw invalid(`two feeds are named ${twice}`);
  const degraded = value['whenDegraded'];
  const whenDegraded = degraded === undefined ? 'guarded' : choice(value, 'whenDegraded', threatLevels, 'the file');
  return { feeds, whenDegraded, protect: texts(value['protect'] ?? [], 'protect').map(protectedValue) };
}

function readFeed(item: unknown, folder: string, where: string): Feed {
  if (!isObject(item)) throw invalid(`${where}: a feed is a map`);
  const name = text(item, 'name', where);
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(name))
    throw invalid(`${where}: name ${show(name)}: lower-case letters, digits and -`);
  const at = `${where}: feed ${name}`;
  known(item, FEED_KEYS, at);
  const format = choice(item, 'format', FORMATS, at);
  const kind = item['kind'] === undefined ? undefined : choice(item, 'kind', indicatorKinds, at);
  const column = optionalNumber(item, 'column', 100, at);
  const timeColumn = optionalNumber(item, 'timeColumn', 100, at);
  const separator = item['separator'] === undefined ? undefined : text(item, 'separator', at);
  const sha256 = item['sha256'] === undefined ? undefined : text(item, 'sha256', at).toLowerCase();
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256)) throw invalid(`${at}: sha256 must be 64 hex digits`);
  const feed = {
    name,
    format,
    location: locationOf(item, folder, sha256, at),
    defaults: {
      confidence: optionalNumber(item, 'confidence', 100, at) ?? 50,
      severity: item['severity'] === undefined ? ('medium' as const) : choice(item, 'severity', severities, at),
      labels: texts(item['labels'] ?? [], `${at}: labels`),
    },
    blocklist: {
      format: format === 'hosts' || format === 'csv' ? format : ('lines' as const),
      ...(kind === undefined ? {} : { kind }),
      ...(column === undefined ? {} : { column }),
      ...(timeColumn === undefined ? {} : { timeColumn }),
      ...(separator === undefined ? {} : { separator }),
    },
    auth: item['auth'] === undefined ? undefined : readAuth(item['auth'], at),
    sha256,
    minisign: minisignOf(item, format, at),
    denies: item['deny'] === undefined ? true : boolean(item, 'deny', at),
    maxAgeSeconds: duration(item, 'maxAge', limits.intelMaxAgeSecondsDefault, at),
    everySeconds: Math.max(
      limits.intelEverySecondsMin,
      duration(item, 'every', limits.intelEverySecondsDefault, at),
    ),
    reliability: optionalNumber(item, 'reliability', 100, at) ?? 100,
    tolerate: texts(item['tolerate'] ?? [], `${at}: tolerate`).map((one) => {
      const found = TOLERABLE.find((kindOfFinding) => kindOfFinding === one);
      if (found === undefined) throw invalid(`${at}: tolerate ${show(one)}: one of ${TOLERABLE.join(', ')}`);
      return found;
    }),
  };
  // How often it is pulled, and how far it is believed, changes nothing about its copy.
  const { auth, sha256: sum, minisign, everySeconds: _every, reliability: _reliability, ...rest } = feed;
  const settings = { ...rest, auth: auth ?? null, sha256: sum ?? null, minisign: minisign ?? null };
  return { ...feed, digest: digestOf(canonicalJson(settings)) };
}

function locationOf(item: Fields, folder: string, sha256: string | undefined, at: string): string {
  if ((item['url'] === undefined) === (item['path'] === undefined)) throw invalid(`${at}: either \`url\` or \`path\``);
  if (item['path'] !== undefined) {
    const path = text(item, 'path', at);
    return isAbsolute(path) ? path : join(folder, path);
  }
  const url = text(item, 'url', at);
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const loopback = parsed !== undefined && /^(127\.\d+\.\d+\.\d+|\[::1\]|localhost)$/.test(parsed.hostname);
  const plain = parsed?.protocol === 'http:' && (loopback || sha256 !== undefined);
  if (
    parsed === undefined ||
    !(parsed.protocol === 'https:' || plain) ||
    parsed.username !== '' ||
    parsed.password !== ''
  ) {
    throw invalid(
      `${at}: url ${show(url)} must be https (http with \`sha256\` only) and have no credentials; use \`auth\``,
    );
  }
  return parsed.href;
}

/** One file, one signature: what comes in pages and folders is protected by TLS alone. */
function minisignOf(item: Fields, format: FeedFormat, at: string): string | undefined {
  if (item['minisign'] === undefined) return undefined;
  const key = text(item, 'minisign', at);
  if (parseMinisignKey(key) === undefined) throw invalid(`${at}: minisign ${show(key)} is no public key of minisign`);
  if (format === 'taxii' || format === 'misp-feed') throw invalid(`${at}: minisign is for feeds of one file`);
  return key;
}

function readAuth(value: unknown, at: string): FeedAuth {
  if (!isObject(value)) throw invalid(`${at}: auth is a map`);
  known(value, ['kind', 'username', 'header', 'tokenEnv'], `${at}: auth`);
  const kind = choice(value, 'kind', AUTH_KINDS, `${at}: auth`);
  const tokenEnv = text(value, 'tokenEnv', `${at}: auth`);
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,99}$/.test(tokenEnv))
    throw invalid(`${at}: tokenEnv must name an environment variable`);
  const header = kind === 'header' ? text(value, 'header', `${at}: auth`) : '';
  if (!/^[A-Za-z0-9-]{0,60}$/.test(header)) throw invalid(`${at}: header ${show(header)} is no name of a header`);
  return { kind, username: kind === 'basic' ? text(value, 'username', `${at}: auth`) : '', header, tokenEnv };
}

function protectedValue(value: string): string {
  const found = normalise('ip', value) ?? normalise('domain', value);
  if (found === undefined) throw invalid(`protect: ${show(value)} is neither an address, a range nor a domain`);
  return found;
}

const SECONDS: Readonly<Record<string, number>> = { m: 60, h: 3600, d: 86_400 };

function duration(item: Fields, key: string, byDefault: number, at: string): number {
  const value = item[key];
  if (value === undefined) return byDefault;
  const match = /^(\d{1,4})([mhd])$/.exec(String(value));
  const unit = SECONDS[match?.[2] ?? ''];
  if (unit === undefined) throw invalid(`${at}: ${key} ${show(String(value))}: write it as 30m, 12h or 7d`);
  return Number(match?.[1]) * unit;
}

function known(value: Fields, keys: readonly string[], where: string): void {
  const stranger = Object.keys(value).find((key) => !keys.includes(key));
  if (stranger !== undefined) throw invalid(`${where}: unknown key ${show(stranger)}; known are ${keys.join(', ')}`);
}

function text(value: Fields, key: string, where: string): string {
  const found = Object.hasOwn(value, key) ? value[key] : undefined;
  if (typeof found !== 'string' || found === '' || found.length > 2048)
    throw invalid(`${where}: \`${key}\` must be a text`);
  return found;
}

function texts(value: unknown, where: string): string[] {
  const list = Array.isArray(value) ? (value as unknown[]) : undefined;
  if (list === undefined || list.length > 1000 || list.some((item) => typeof item !== 'string')) {
    throw invalid(`${where}: must be a list of texts`);
  }
  return list as string[];
}

function choice<T extends string>(value: Fields, key: string, among: readonly T[], where: string): T {
  const wanted = text(value, key, where);
  const found = among.find((one) => one === wanted);
  if (found === undefined) throw invalid(`${where}: ${key} ${show(wanted)}: one of ${among.join(', ')}`);
  return found;
}

function boolean(value: Fields, key: string, where: string): boolean {
  const found = value[key];
  if (typeof found !== 'boolean') throw invalid(`${where}: ${key} must be true or false`);
  return found;
}

function optionalNumber(value: Fields, key: string, max: number, where: string): number | undefined {
  const found = value[key];
  if (found === undefined) return undefined;
  if (!Number.isInteger(found) || (found as number) < 0 || (found as number) > max) {
    throw invalid(`${where}: ${key} must be a whole number from 0 to ${max}`);
  }
  return found as number;
}

function show(value: string): string {
  return JSON.stringify(printableLine(value, 60));
}

function invalid(message: string): MayflyError {
  return new MayflyError('E_INTEL_CONFIG', `feeds.yaml: ${message}`);
}
