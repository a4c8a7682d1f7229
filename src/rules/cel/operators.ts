/** The operators of CEL: what they accept when a rule is loaded, and what they do when it runs. */
import { threatLevels } from '../../profile/levels.ts';
import { flip, join, opaque, senseOfLevels } from './threat.ts';
import type { ThreatSense } from './threat.ts';
import { CelProblem, pick } from './node.ts';
import type { Demands, Node, Run } from './node.ts';
import { BOOL, describeType, DOUBLE, DYN, INT, isComparable, isNumber, STRING, unite } from './type.ts';
import type { CelType } from './type.ts';
import { CelFailure, charactersPerStep, compare, equals, exhausted, nameOfValue, spend, textSteps } from './value.ts';

type Operator = (args: readonly Node[]) => Node;

export const operators: ReadonlyMap<string, Operator> = new Map<string, Operator>([
  ['_&&_', (args) => logical(args, false)],
  ['_||_', (args) => logical(args, true)],
  ['!_', not],
  ['_?_:_', conditional],
  ['_==_', (args) => equality(args, true)],
  ['_!=_', (args) => equality(args, false)],
  ['_<_', (args) => ordering(args, '<')],
  ['_<=_', (args) => ordering(args, '<=')],
  ['_>_', (args) => ordering(args, '>')],
  ['_>=_', (args) => ordering(args, '>=')],
  ['@in', membership],
  ['_+_', (args) => arithmetic(args, '+')],
  ['_-_', (args) => arithmetic(args, '-')],
  ['_*_', (args) => arithmetic(args, '*')],
  ['_/_', (args) => arithmetic(args, '/')],
  ['_%_', (args) => arithmetic(args, '%')],
  ['-_', negate],
]);

function requireBool({ type }: Node, what: string): void {
  if (type.kind !== 'bool' && type.kind !== 'dyn')
    throw new CelProblem(`${what} is ${describeType(type)}; it must be true or false`);
}

/** `&&` stops at false, `||` at true; a failure counts only when no side decides. */
function logical(args: readonly Node[], decisive: boolean): Node {
  const name = decisive ? '||' : '&&';
  for (const arg of args) requireBool(arg, `a side of ${name}`);
  const runs = args.map(({ run }) => run);
  const unfit = new CelFailure(`a side of ${name} is not true or false`);
  const run: Run = (scope) => {
    let failure: CelFailure | undefined;
    for (const each of runs) {
      const value = each(scope);
      if (value === decisive) return decisive;
      if (value !== !decisive) failure ??= value instanceof CelFailure ? value : unfit;
    }
    return failure ?? !decisive;
  };
  const demands = decisive ? undefined : mergeDemands(args);
  return {
    type: BOOL,
    run,
    threat: join(...args.map(({ threat }) => threat)),
    ...(demands === undefined ? {} : { demands }),
  };
}

function mergeDemands(args: readonly Node[]): Demands {
  const merged = new Map<string, ReadonlySet<unknown>>();
  for (const [path, values] of args.flatMap(({ demands }) => [...(demands ?? [])])) {
    const known = merged.get(path);
    merged.set(path, known === undefined ? values : new Set([...known].filter((value) => values.has(value))));
  }
  return merged;
}

function not(args: readonly Node[]): Node {
  const operand = pick(args, 0);
  requireBool(operand, 'what ! stands before');
  const unfit = new CelFailure('what ! stands before is not true or false');
  return {
    type: BOOL,
    threat: flip(operand.threat),
    run: (scope) => {
      const value = operand.run(scope);
      if (typeof value === 'boolean') return !value;
      return value instanceof CelFailure ? value : unfit;
    },
  };
}

function conditional(args: readonly Node[]): Node {
  const [condition, yes, no] = [pick(args, 0), pick(args, 1), pick(args, 2)];
  requireBool(condition, 'what stands before ?');
  const type = unite(yes.type, no.type);
  if (type === undefined) {
    throw new CelProblem(
      `? chooses between ${describeType(yes.type)} and ${describeType(no.type)}; both must be of one type`,
    );
  }
  const unfit = new CelFailure('what stands before ? is not true or false');
  return {
    type,
    threat: condition.threat === 'none' ? join(yes.threat, no.threat) : 'mixed',
    run: (scope) => {
      const value = condition.run(scope);
      if (value === true) return yes.run(scope);
      if (value === false) return no.run(scope);
      return value instanceof CelFailure ? value : unfit;
    },
  };
}

function equality(args: readonly Node[], wanted: boolean): Node {
  const [a, b] = [pick(args, 0), pick(args, 1)];
  if (!isComparable(a.type, b.type)) {
    throw new CelProblem(`${describeType(a.type)} never equals ${describeType(b.type)}`);
  }
  const [member, literal] = a.path === undefined ? [b, a] : [a, b];
  const chosen = literal.literal === undefined ? undefined : new Set([literal.literal]);
  const sense = chosen === undefined ? opaque(a.threat, b.threat) : senseOfChoice(member, chosen);
  const demanded =
    wanted && chosen !== undefined && member.path !== undefined ? { demands: new Map([[member.path, chosen]]) } : {};
  return {
    type: BOOL,
    threat: wanted ? sense : flip(sense),
    ...demanded,
    run: (scope) => {
      const left = a.run(scope);
      if (left instanceof CelFailure) return left;
      const right = b.run(scope);
      if (right instanceof CelFailure) return right;
      const same = equals(scope, left, right);
      return typeof same === 'boolean' ? same === wanted : same;
    },
  };
}

/** Of a member that must have one of the values; the level is the only one whose values have an order. */
function senseOfChoice(member: Node, chosen: ReadonlySet<unknown>): ThreatSense {
  if (member.path !== 'level') return opaque(member.threat);
  const unknown = [...chosen].find((value) => !threatLevels.some((level) => level === value));
  if (unknown !== undefined)
    throw new CelProblem(`${JSON.stringify(unknown)} is no level; there are ${threatLevels.join(', ')}`);
  return senseOfLevels(chosen);
}

const holds = {
  '<': (order: number) => order < 0,
  '<=': (order: number) => order <= 0,
  '>': (order: number) => order > 0,
  '>=': (order: number) => order >= 0,
} as const;

function ordering(args: readonly Node[], sign: keyof typeof holds): Node {
  const [a, b] = [pick(args, 0), pick(args, 1)];
  const ordered = (type: CelType): boolean => isNumber(type) || type.kind === 'string';
  if (!ordered(a.type) || !ordered(b.type) || !isComparable(a.type, b.type)) {
    throw new CelProblem(`${sign} does not compare ${describeType(a.type)} with ${describeType(b.type)}`);
  }
  if (a.path === 'level' || b.path === 'level') {
    throw new CelProblem(`${sign} compares levels as texts; write level in ["high", "critical"], or compare score`);
  }
  const test = holds[sign];
  const rises = sign.startsWith('>');
  return {
    type: BOOL,
    threat: rises ? join(a.threat, flip(b.threat)) : join(flip(a.threat), b.threat),
    run: (scope) => {
      const left = a.run(scope);
      if (left instanceof CelFailure) return left;
      const right = b.run(scope);
      if (right instanceof CelFailure) return right;
      if (typeof left === 'string' && !spend(scope, textSteps(left, charactersPerStep.searched))) return exhausted;
      const order = compare(left, right);
      if (order !== undefined) return test(order);
      return new CelFailure(`${sign} does not compare ${nameOfValue(left)} with ${nameOfValue(right)}`);
    },
  };
}

function membership(args: readonly Node[]): Node {
  const [item, within] = [pick(args, 0), pick(args, 1)];
  const { type } = within;
  if (type.kind !== 'list' && type.kind !== 'map' && type.kind !== 'dyn') {
    throw new CelProblem(`in looks into lists and maps, not into ${describeType(type)}`);
  }
  const element = type.kind === 'list' ? type.of : type.kind === 'map' ? STRING : DYN;
  if (!isComparable(item.type, element)) {
    throw new CelProblem(`${describeType(item.type)} is never in a ${describeType(type)}`);
  }
  const chosen = Array.isArray(within.literal) ? new Set<unknown>(within.literal) : undefined;
  const threat =
    chosen === undefined ? (item.threat === 'none' ? within.threat : 'mixed') : senseOfChoice(item, chosen);
  const demanded = chosen !== undefined && item.path !== undefined ? { demands: new Map([[item.path, chosen]]) } : {};
  return {
    type: BOOL,
    threat,
    ...demanded,
    run: (scope) => {
      const value = item.run(scope);
      if (value instanceof CelFailure) return value;
      if (chosen !== undefined && (typeof value !== 'object' || value === null))
        return spend(scope, 1) ? chosen.has(value) : exhausted;
      const list = within.run(scope);
      if (list instanceof CelFailure) return list;
      if (!Array.isArray(list)) {
        if (typeof list === 'object' && list !== null && typeof value === 'string') return Object.hasOwn(list, value);
        return new CelFailure(`in looks into lists and maps, not into ${nameOfValue(list)}`);
      }
      if (!spend(scope, list.length)) return exhausted;
      for (const each of list) {
        const same = equals(scope, value, each);
        if (same !== false) return same;
      }
      return false;
    },
  };
}

function typeOfArithmetic(a: CelType, b: CelType, sign: string): CelType {
  const kinds = [a.kind, b.kind];
  if (kinds.every((kind) => kind === 'int')) return INT;
  if (sign === '%') throw new CelProblem('% needs two int');
  if (kinds.every((kind) => kind === 'double')) return DOUBLE;
  if (kinds.includes('dyn') && kinds.includes('int')) {
    throw new CelProblem(`numbers of JSON are double: write 1.0 instead of 1, or int(…), beside ${sign}`);
  }
  if (kinds.includes('dyn') && kinds.every((kind) => kind === 'dyn' || kind === 'double'))
    return sign === '+' ? DYN : DOUBLE;
  if (sign === '+' && kinds.every((kind) => kind === 'string' || kind === 'dyn')) return STRING;
  throw new CelProblem(`${sign} does not work on ${describeType(a)} and ${describeType(b)}`);
}

function arithmetic(args: readonly Node[], sign: '+' | '-' | '*' | '/' | '%'): Node {
  const [a, b] = [pick(args, 0), pick(args, 1)];
  const type = typeOfArithmetic(a.type, b.type, sign);
  const whole = type.kind === 'int';
  const threat =
    sign === '+'
      ? join(a.threat, b.threat)
      : sign === '-'
        ? join(a.threat, flip(b.threat))
        : opaque(a.threat, b.threat);
  return {
    type,
    threat,
    run: (scope) => {
      const left = a.run(scope);
      if (left instanceof CelFailure) return left;
      const right = b.run(scope);
      if (right instanceof CelFailure) return right;
      if (typeof left === 'number' && typeof right === 'number')
        return whole ? wholeOf(left, right, sign) : doubleOf(left, right, sign);
      if (sign === '+' && typeof left === 'string' && typeof right === 'string') {
        const steps = textSteps(left, charactersPerStep.copied) + textSteps(right, charactersPerStep.copied);
        return spend(scope, steps) ? left + right : exhausted;
      }
      return new CelFailure(`${sign} does not work on ${nameOfValue(left)} and ${nameOfValue(right)}`);
    },
  };
}

const OVERFLOW = new CelFailure('a number leaves the range of int (2^53)');
const BY_ZERO = new CelFailure('division by zero');

function wholeOf(a: number, b: number, sign: string): number | CelFailure {
  if (b === 0 && (sign === '/' || sign === '%')) return BY_ZERO;
  const value = sign === '/' ? Math.trunc(a / b) : sign === '%' ? a % b : doubleOf(a, b, sign);
  return Number.isSafeInteger(value) ? value + 0 : OVERFLOW;
}

function doubleOf(a: number, b: number, sign: string): number {
  switch (sign) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    default:
      return a / b;
  }
}

function negate(args: readonly Node[]): Node {
  const operand = pick(args, 0);
  if (!isNumber(operand.type)) throw new CelProblem(`- does not work on ${describeType(operand.type)}`);
  const { type, threat } = operand;
  return {
    type,
    threat: flip(threat),
    ...(typeof operand.literal === 'number' ? { literal: -operand.literal } : {}),
    run: (scope) => {
      const value = operand.run(scope);
      if (typeof value === 'number') return -value;
      return value instanceof CelFailure ? value : new CelFailure(`- does not work on ${nameOfValue(value)}`);
    },
  };
}
