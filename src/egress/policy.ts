/**
 * Whether a connection may be: pure, the same answer for the broker, for the resolver and for `mayfly egress explain`.
 *
 *   1  mode none                       denied
 *   2  listed by threat intelligence   denied
 *   3  an address that is not of the public Internet, and no rule that allows its range with `private: true`   denied
 *   4  any deny rule that applies      denied
 *   5  any allow rule that applies     allowed (all of 4 passed), or mode audit
 *   6  otherwise                       denied
 */
import type { NetworkPolicy, NetworkRule, Protocol } from '../profile/network.ts';
import type { Denies } from './contract.ts';
import { contains, specialRange } from './host.ts';

/** What is known of a connection; hosts and addresses are canonical. */
export interface Destination {
  /** The name that was resolved for it; undefined for a bare address. */
  readonly name: string | undefined;
  /** Undefined before a name has been resolved. */
  readonly address: string | undefined;
  /** Undefined when a name is only resolved: any port that may be allowed. */
  readonly port: number | undefined;
  /** Absent before the first bytes. */
  readonly protocol?: Protocol | undefined;
  /** Absent before there is one. */
  readonly request?: RequestTarget | undefined;
}

/** What HTTP rules judge. */
export interface RequestTarget {
  readonly method: string;
  /** Without query, and in the one form that `plainPath` lets pass. */
  readonly path: string;
}

export interface Decision {
  readonly allowed: boolean;
  /** As in `rule 2: allow *.example.com:443`. */
  readonly because: string;
}

export function decide(policy: NetworkPolicy, destination: Destination, denies: Denies = nothing): Decision {
  if (policy.mode === 'none') return { allowed: false, because: 'the profile allows no network' };
  const listed = denies(destination);
  if (listed !== undefined) return { allowed: false, because: listed };
  const { address } = destination;
  const special = address === undefined ? undefined : specialRange(address);
  if (special !== undefined && !policy.rules.some((rule) => isExemption(rule, destination))) {
    return { allowed: false, because: `${address} is ${special}: no rule allows its range as private` };
  }
  const denied = policy.rules.findIndex((rule) => rule.action === 'deny' && applies(rule, destination, 'surely'));
  if (denied !== -1) return { allowed: false, because: describeRule(policy, denied) };
  const allowed = policy.rules.findIndex((rule) => rule.action === 'allow' && applies(rule, destination, 'perhaps'));
  if (allowed !== -1) return { allowed: true, because: describeRule(policy, allowed) };
  if (policy.mode === 'audit') return { allowed: true, because: 'audit: everything that no rule denies' };
  return { allowed: false, because: 'no rule allows it' };
}

function nothing(): undefined {}

function isExemption(rule: NetworkRule, destination: Destination): boolean {
  return rule.action === 'allow' && rule.private === true && applies(rule, destination, 'surely');
}

/**
 * What is not known yet (an address before it is resolved, a port before anyone connects) fits an allow rule for the
 * time being and a deny rule not yet: the connection is judged again when it is known.
 */
function applies(rule: NetworkRule, destination: Destination, unknown: 'surely' | 'perhaps'): boolean {
  const open = unknown === 'perhaps';
  const { name, address, port } = destination;
  if (!appliesToWhatIsSpoken(rule, destination, open)) return false;
  const { host, cidr, ports } = rule;
  if (host !== undefined && (name === undefined || !matchesName(host, name))) return false;
  if (cidr !== undefined && (address === undefined ? !open : !contains(cidr, address))) return false;
  if (ports === undefined) return true;
  return port === undefined ? open : ports.some(([first, last]) => port >= first && port <= last);
}

function appliesToWhatIsSpoken(rule: NetworkRule, { protocol, request }: Destination, open: boolean): boolean {
  if (rule.protocol !== undefined && (protocol === undefined ? !open : rule.protocol !== protocol)) return false;
  const { methods, paths } = rule;
  if (methods === undefined && paths === undefined) return true;
  if (request === undefined) return open && (protocol === undefined || protocol === 'http');
  if (methods !== undefined && !methods.includes(request.method)) return false;
  return paths === undefined || paths.some((pattern) => matchesPath(pattern, request.path));
}

function matchesPath(pattern: string, path: string): boolean {
  return pattern.endsWith('*') ? path.startsWith(pattern.slice(0, -1)) : path === pattern;
}

/**
 * The path that every server understands as this one; undefined for what some of them would resolve, decode or cut into
 * another one (`/a/../b`, `%2e`, `\`, `;`, `//`): no rule about paths can judge that.
 */
export function plainPath(target: string): string | undefined {
  const path = target.split('?', 1)[0] ?? '';
  if (!/^\/[!-~]*$/.test(path)) return undefined;
  if (/[\\;#]|\/\/|%(?![0-9a-f]{2})|%(?:2e|2f|5c|3b|25|00|0a|0d)/i.test(path)) return undefined;
  if (path.split('/').some((part) => part === '.' || part === '..')) return undefined;
  // What needs no escape is not written with one.
  return path.replace(/%[0-9a-f]{2}/gi, (escaped) => {
    const character = String.fromCharCode(Number.parseInt(escaped.slice(1), 16));
    return /[A-Za-z0-9_~-]/.test(character) ? character : escaped.toUpperCase();
  });
}

/** Some rule that may apply there asks for the method or path of a request. */
export function asksForRequests(policy: NetworkPolicy, destination: Destination): boolean {
  return policy.rules.some((rule) => {
    return (rule.methods !== undefined || rule.paths !== undefined) && applies(rule, destination, 'perhaps');
  });
}

function matchesName(pattern: string, name: string): boolean {
  if (pattern === '*') return true;
  return pattern.startsWith('*.') ? name.endsWith(pattern.slice(1)) && name.length >= pattern.length : name === pattern;
}

function describeRule({ rules }: NetworkPolicy, index: number): string {
  const rule = rules[index];
  if (rule === undefined) return 'no rule';
  const { action, host, cidr, ports, protocol, methods, paths } = rule;
  const where = [host, cidr].filter((each) => each !== undefined).join(' at ') || 'everything';
  const ranges = ports?.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
  const what = [protocol, methods?.join(','), paths?.join(',')].filter((each) => each !== undefined).join(' ');
  const place = `${where}${ranges === undefined ? '' : `:${ranges.join(',')}`}`;
  return `rule ${index + 1}: ${action} ${what === '' ? '' : `${what} of `}${place}`;
}
