/** From what people write about the network to a NetworkPolicy: bounded, canonical, and precise about what is wrong. */
import { getPublicSuffix } from 'tldts';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { defaultNetworkLimits as defaultLimits, noNetwork } from '../profile/network.ts';
import type { NetworkLimits, NetworkPolicy, NetworkRule, Protocol, TlsPolicy } from '../profile/network.ts';
import { parseCidr, parseHost } from './host.ts';
import { plainPath } from './policy.ts';

/** A file of `--network`: `{"mode": "rules", "rules": [{"allow": "*.example.com:443"}, …], "limits": {…}}`. */
export function parseNetworkFile(text: string): NetworkPolicy {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(`it is not JSON (${cause instanceof Error ? cause.message : String(cause)})`);
  }
  const fields = record(value, 'it', ['mode', 'rules', 'tls', 'limits']);
  const mode = fields['mode'] ?? 'rules';
  if (mode !== 'none' && mode !== 'rules' && mode !== 'audit') throw invalid('mode must be none, rules or audit');
  const rules = fields['rules'] ?? [];
  if (!Array.isArray(rules)) throw invalid('rules must be a list');
  if (mode === 'none') return noNetwork;
  const parsed = rules.map((rule, index) => parseRule(rule, `rule ${index + 1}`));
  return policyOf(mode, parsed, parseTls(fields['tls']), parseLimits(fields['limits']));
}

/** Texts of `--allow`: `HOST`, `HOST:PORT`, `*.HOST:PORT-PORT`, an address or a range. */
export function parseAllowList(texts: readonly string[]): NetworkPolicy {
  const rules = texts.map((text) => parseRule({ allow: text }, `--allow ${text}`));
  return policyOf('rules', rules, noNetwork.tls, defaultLimits);
}

function policyOf(
  mode: 'rules' | 'audit',
  rules: readonly NetworkRule[],
  tls: TlsPolicy,
  bounds: NetworkLimits,
): NetworkPolicy {
  if (rules.length > limits.networkRulesMax) throw invalid(`there are more than ${limits.networkRulesMax} rules`);
  return { mode, rules, tls, limits: bounds };
}

/** `{"allow": WHERE}` or `{"deny": WHERE}`, and perhaps more of what it depends on. */
function parseRule(value: unknown, what: string): NetworkRule {
  const fields = record(value, what, RULE_FIELDS);
  const { allow, deny } = fields;
  if ((allow === undefined) === (deny === undefined)) throw invalid(`${what} must have one of allow and deny`);
  const action = allow === undefined ? 'deny' : 'allow';
  const where = allow ?? deny;
  if (typeof where !== 'string') throw invalid(`${what}: ${action} must be a text`);
  const place = parsePlace(where, action, what);
  const range = fields['cidr'] === undefined ? place.cidr : parseRange(fields['cidr'], what);
  if (place.cidr !== undefined && fields['cidr'] !== undefined) throw invalid(`${what} names two ranges`);
  const ports = fields['ports'] === undefined ? place.ports : parsePorts(fields['ports'], what);
  const isPrivate = fields['private'];
  if (isPrivate !== undefined && isPrivate !== true) throw invalid(`${what}: private can only be true`);
  if (isPrivate === true && (range === undefined || action === 'deny')) {
    throw invalid(`${what}: private belongs to an allow rule that names the exact range`);
  }
  return {
    action,
    ...(place.host === undefined ? {} : { host: place.host }),
    ...(range === undefined ? {} : { cidr: range }),
    ...(ports === undefined ? {} : { ports }),
    ...parseSpoken(fields, what),
    ...(isPrivate === true ? { private: true } : {}),
  };
}

const RULE_FIELDS = ['allow', 'deny', 'cidr', 'ports', 'protocol', 'methods', 'paths', 'private'];
const PROTOCOLS: readonly unknown[] = ['tcp', 'tls', 'http'] satisfies readonly Protocol[];

function parseSpoken(fields: Readonly<Record<string, unknown>>, what: string): Partial<NetworkRule> {
  const { protocol, methods, paths } = fields;
  if (protocol !== undefined && !PROTOCOLS.includes(protocol)) {
    throw invalid(`${what}: protocol must be tcp, tls or http`);
  }
  const requests = methods !== undefined || paths !== undefined;
  if (requests && protocol !== undefined && protocol !== 'http') {
    throw invalid(`${what}: only HTTP has methods and paths`);
  }
  return {
    ...(protocol === undefined ? {} : { protocol: protocol as Protocol }),
    ...(methods === undefined ? {} : { methods: parseMethods(methods, what) }),
    ...(paths === undefined ? {} : { paths: parsePaths(paths, what) }),
  };
}

function parseMethods(value: unknown, what: string): readonly string[] {
  const methods = texts(value, limits.ruleMethodsMax, `${what}: methods`);
  const wrong = methods.find((method) => !/^[A-Z]{1,24}$/.test(method));
  if (wrong !== undefined) throw invalid(`${what}: no method ${JSON.stringify(printableLine(wrong, 40))}`);
  return methods;
}

function parsePaths(value: unknown, what: string): readonly string[] {
  return texts(value, limits.rulePathsMax, `${what}: paths`).map((path) => {
    const open = path.endsWith('*');
    const plain = path.length > limits.rulePathUnitsMax ? undefined : plainPath(open ? path.slice(0, -1) : path);
    if (plain !== undefined && !plain.includes('*')) return open ? `${plain}*` : plain;
    throw invalid(`${what}: ${JSON.stringify(printableLine(path, 60))} is no plain path, with * at most at its end`);
  });
}

function texts(value: unknown, most: number, what: string): readonly string[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const strings = list.filter((each) => typeof each === 'string');
  if (strings.length < list.length || list.length === 0 || list.length > most) {
    throw invalid(`${what} must be a list of 1 to ${most} texts`);
  }
  return strings;
}

function parseTls(value: unknown): TlsPolicy {
  if (value === undefined) return noNetwork.tls;
  const fields = record(value, 'tls', ['noName', 'ech']);
  const verdict = (name: 'noName' | 'ech'): 'allow' | 'deny' => {
    const given = fields[name] ?? 'deny';
    if (given === 'allow' || given === 'deny') return given;
    throw invalid(`tls.${name} must be allow or deny`);
  };
  return { noName: verdict('noName'), ech: verdict('ech') };
}

type Place = Pick<NetworkRule, 'host' | 'cidr' | 'ports'>;

function parsePlace(text: string, action: string, what: string): Place {
  const range = parseCidr(text);
  if (range !== undefined) return { cidr: range };
  const [, where = '', port] = /^(.*?)(?::([\d,-]+))?$/s.exec(text) ?? [];
  const ports = port === undefined ? {} : { ports: parsePorts(port, what) };
  const numbered = parseCidr(where);
  if (numbered !== undefined) return { cidr: numbered, ...ports };
  if (where === '*') return { host: '*', ...ports };
  const wild = where.startsWith('*.');
  const host = parseHost(wild ? where.slice(2) : where);
  if (host?.kind !== 'name') {
    throw invalid(`${what}: ${JSON.stringify(printableLine(where, 100))} is no host, address or range`);
  }
  if (wild && action === 'allow' && isPublicSuffix(host.name)) {
    throw invalid(`${what}: *.${host.name} would allow everyone who has a name below ${host.name}`);
  }
  return { host: wild ? `*.${host.name}` : host.name, ...ports };
}

/** Names below it belong to anyone. */
function isPublicSuffix(name: string): boolean {
  return getPublicSuffix(name, { allowPrivateDomains: false }) === name && !RESERVED.has(name);
}

/** Top-level names that nobody on the Internet has (RFC 6761, RFC 8375 and ICANN's `internal`). */
const RESERVED: ReadonlySet<string> = new Set([
  'test', 'example', 'invalid', 'localhost', 'local', 'internal', 'lan', 'home',
]);

function parseRange(value: unknown, what: string): string {
  const range = typeof value === 'string' ? parseCidr(value) : undefined;
  if (range === undefined) throw invalid(`${what}: cidr must be an address or a range without bits beyond its prefix`);
  return range;
}

function parsePorts(value: unknown, what: string): readonly (readonly [number, number])[] {
  const texts = Array.isArray(value) ? value.map(String) : String(value).split(',');
  if (texts.length > 32) throw invalid(`${what} has more than 32 ranges of ports`);
  return texts.map((text) => {
    const [, first, last] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
    const range = [Number(first), Number(last ?? first)] as const;
    if (!(range[0] >= 1 && range[0] <= range[1] && range[1] <= 65_535)) {
      throw invalid(`${what}: no port ${printableLine(text, 40)}`);
    }
    return range;
  });
}

function parseLimits(value: unknown): NetworkLimits {
  if (value === undefined) return defaultLimits;
  const fields = record(value, 'limits', ['connections', 'connectionsPerSecond', 'bytes']);
  const number = (name: keyof NetworkLimits, max: number): number => {
    const given = fields[name];
    if (given === undefined) return defaultLimits[name];
    if (typeof given === 'number' && Number.isSafeInteger(given) && given >= 0 && given <= max) return given;
    throw invalid(`limits.${name} must be a whole number from 0 to ${max}`);
  };
  return {
    connections: number('connections', limits.egressConnectionsTotalMax),
    connectionsPerSecond: number('connectionsPerSecond', 10_000),
    bytes: number('bytes', Number.MAX_SAFE_INTEGER),
  };
}

function record(value: unknown, what: string, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`${what} must be an object`);
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw invalid(`${what} has an unknown field ${JSON.stringify(printableLine(unknown, 40))}`);
  }
  return value as Readonly<Record<string, unknown>>;
}

function invalid(message: string): MayflyError {
  return new MayflyError('E_NETWORK_INVALID', `The network policy cannot be used: ${message}.`);
}
