/**
 * The functions that rules may call. Patterns and networks must be literals: they are compiled and bounded when a rule
 * is loaded, by RE2, whose time is linear in the text whatever the pattern.
 */
import { BlockList, isIP } from 'node:net';
import { RE2JS } from 're2js';
import { limits } from '../../core/limits.ts';
import { CelProblem, pick } from './node.ts';
import type { Node } from './node.ts';
import { opaque } from './threat.ts';
import { BOOL, describeType, DOUBLE, INT, isNumber, STRING } from './type.ts';
import { CelFailure, charactersPerStep, exhausted, nameOfValue, spend, textSteps } from './value.ts';
import type { Scope } from './value.ts';

/** Of a method, the first argument is what it is called on. */
type Builder = (args: readonly Node[]) => Node;

export const functions: ReadonlyMap<string, Builder> = new Map<string, Builder>([
  ['startsWith', (args) => textTest(args, 'startsWith', (text, part) => text.startsWith(part))],
  ['endsWith', (args) => textTest(args, 'endsWith', (text, part) => text.endsWith(part))],
  ['contains', (args) => textTest(args, 'contains', (text, part) => text.includes(part))],
  ['matches', matches],
  ['inCidr', inCidr],
  ['lowerAscii', lowerAscii],
  ['size', size],
  ['int', toInt],
  ['double', toDouble],
  ['string', toText],
]);

function exactly(args: readonly Node[], count: number, name: string): void {
  if (args.length !== count)
    throw new CelProblem(`${name} takes ${count} argument${count === 1 ? '' : 's'}, not ${args.length}`);
}

function requireText({ type }: Node, name: string): void {
  if (type.kind !== 'string' && type.kind !== 'dyn')
    throw new CelProblem(`${name} works on text, not on ${describeType(type)}`);
}

/** Runs `work` on the text of an argument, or passes a failure on. */
function onText(scope: Scope, node: Node, name: string, work: (text: string) => unknown): unknown {
  const value = node.run(scope);
  if (typeof value === 'string') return work(value);
  return value instanceof CelFailure ? value : new CelFailure(`${name} works on text, not on ${nameOfValue(value)}`);
}

function textTest(args: readonly Node[], name: string, test: (text: string, part: string) => boolean): Node {
  exactly(args, 2, name);
  const [text, part] = [pick(args, 0), pick(args, 1)];
  for (const arg of args) requireText(arg, name);
  return {
    type: BOOL,
    threat: opaque(text.threat, part.threat),
    run: (scope) =>
      onText(scope, text, name, (whole) =>
        onText(scope, part, name, (piece) => {
          if (!spend(scope, textSteps(whole, charactersPerStep.searched))) return exhausted;
          return test(whole, piece);
        }),
      ),
  };
}

function literalText(node: Node, name: string): string {
  if (typeof node.literal === 'string') return node.literal;
  throw new CelProblem(`${name} needs a literal text, so that it can be checked when the rule is loaded`);
}

function matches(args: readonly Node[]): Node {
  exactly(args, 2, 'matches');
  const text = pick(args, 0);
  requireText(text, 'matches');
  const pattern = compilePattern(literalText(pick(args, 1), 'matches'));
  const tooLong = new CelFailure(`matches reads at most ${limits.ruleMatchedUnitsMax} characters`);
  return {
    type: BOOL,
    threat: opaque(text.threat),
    run: (scope) =>
      onText(scope, text, 'matches', (whole) => {
        if (whole.length > limits.ruleMatchedUnitsMax) return tooLong;
        if (!spend(scope, textSteps(whole, charactersPerStep.matched))) return exhausted;
        return pattern.test(whole);
      }),
  };
}

function compilePattern(pattern: string): RE2JS {
  if (pattern.length > limits.rulePatternUnitsMax) {
    throw new CelProblem(`the pattern is longer than ${limits.rulePatternUnitsMax} characters`);
  }
  try {
    return RE2JS.compile(pattern);
  } catch (thrown) {
    throw new CelProblem(`the pattern is not valid RE2: ${(thrown as Error).message}`);
  }
}

function inCidr(args: readonly Node[]): Node {
  exactly(args, 2, 'inCidr');
  const address = pick(args, 0);
  requireText(address, 'inCidr');
  const network = compileNetwork(literalText(pick(args, 1), 'inCidr'));
  return {
    type: BOOL,
    threat: opaque(address.threat),
    run: (scope) =>
      onText(scope, address, 'inCidr', (text) => {
        if (!spend(scope, 4)) return exhausted;
        const family = isIP(text);
        // Where nobody knows the address there is none: in no network.
        if (family === 0) return text === '' ? false : new CelFailure('inCidr: not an IP address');
        return network.check(text, family === 6 ? 'ipv6' : 'ipv4');
      }),
  };
}

function compileNetwork(text: string): BlockList {
  const [address = '', prefix = '', ...rest] = text.split('/');
  const family = isIP(address);
  const bits = Number(prefix);
  if (family === 0 || rest.length > 0 || !/^\d{1,3}$/.test(prefix) || bits > (family === 6 ? 128 : 32)) {
    throw new CelProblem(`${JSON.stringify(text)} is no network, as in "203.0.113.0/24" or "2001:db8::/32"`);
  }
  const list = new BlockList();
  list.addSubnet(address, bits, family === 6 ? 'ipv6' : 'ipv4');
  return list;
}

function lowerAscii(args: readonly Node[]): Node {
  exactly(args, 1, 'lowerAscii');
  const text = pick(args, 0);
  requireText(text, 'lowerAscii');
  return {
    type: STRING,
    threat: opaque(text.threat),
    run: (scope) =>
      onText(scope, text, 'lowerAscii', (whole) => {
        if (!spend(scope, textSteps(whole, charactersPerStep.copied))) return exhausted;
        return whole.replace(/[A-Z]+/g, (upper) => upper.toLowerCase());
      }),
  };
}

function size(args: readonly Node[]): Node {
  exactly(args, 1, 'size');
  const of = pick(args, 0);
  if (!['string', 'list', 'map', 'dyn'].includes(of.type.kind))
    throw new CelProblem(`size does not count ${describeType(of.type)}`);
  return {
    type: INT,
    // Of a list that grows with the threat, the size does.
    threat: of.threat,
    run: (scope) => {
      const value = of.run(scope);
      if (value instanceof CelFailure) return value;
      if (Array.isArray(value)) return value.length;
      if (typeof value === 'string') {
        return spend(scope, textSteps(value, charactersPerStep.copied)) ? countCharacters(value) : exhausted;
      }
      if (typeof value !== 'object' || value === null)
        return new CelFailure(`size does not count ${nameOfValue(value)}`);
      const count = Object.keys(value).length;
      return spend(scope, count) ? count : exhausted;
    },
  };
}

/** Code points, as CEL counts. */
function countCharacters(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++) {
    const low = (text.charCodeAt(i) & 0xfc00) === 0xdc00;
    if (low && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800) count -= 1;
  }
  return count;
}

function conversion(args: readonly Node[], type: Node['type'], convert: (value: unknown) => unknown): Node {
  exactly(args, 1, type.kind);
  const of = pick(args, 0);
  if (!isNumber(of.type) && of.type.kind !== 'string')
    throw new CelProblem(`${type.kind} does not convert ${describeType(of.type)}`);
  return {
    type,
    threat: isNumber(of.type) && type.kind !== 'string' ? of.threat : opaque(of.threat),
    run: (scope) => {
      const value = of.run(scope);
      if (value instanceof CelFailure) return value;
      return convert(value) ?? new CelFailure(`${type.kind} does not convert ${nameOfValue(value)}`);
    },
  };
}

function toInt(args: readonly Node[]): Node {
  return conversion(args, INT, (value) => {
    const number = typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
    if (typeof number !== 'number') return undefined;
    const whole = Math.trunc(number) + 0;
    return Number.isSafeInteger(whole) ? whole : new CelFailure('a number leaves the range of int (2^53)');
  });
}

function toDouble(args: readonly Node[]): Node {
  return conversion(args, DOUBLE, (value) => {
    if (typeof value === 'string') return /^-?\d{1,20}(\.\d{1,20})?$/.test(value) ? Number(value) : undefined;
    return typeof value === 'number' ? value : undefined;
  });
}

function toText(args: readonly Node[]): Node {
  return conversion(args, STRING, (value) =>
    typeof value === 'number' || typeof value === 'string' ? String(value) : undefined,
  );
}
