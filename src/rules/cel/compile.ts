/**
 * From the text of an expression to a function that can be run on any event, or to what is wrong with it and where.
 *
 * @bufbuild/cel parses. It exports no type checker and its evaluator has no cost limit, so the parsed tree is walked
 * here once: names and types are checked against the schema, and every part becomes a closure that pays for its
 * steps. The unit tests compare the result with the library's evaluator, expression by expression.
 */
import { parse } from '@bufbuild/cel';
import { limits } from '../../core/limits.ts';
import { functions } from './functions.ts';
import { Macros } from './macros.ts';
import { CelProblem } from './node.ts';
import type { Node, Outcome } from './node.ts';
import { operators } from './operators.ts';
import { suggest } from './suggest.ts';
import { opaque } from './threat.ts';
import type { ThreatSense } from './threat.ts';
import { BOOL, describeType, DOUBLE, DYN, INT, listOf, NULL, STRING, unite } from './type.ts';
import type { CelType } from './type.ts';
import { CelFailure, exhausted, isRecord, nameOfValue } from './value.ts';
import type { Scope } from './value.ts';

export type Expr = ReturnType<typeof parse>['expr'];
type Kind<Name> = Extract<Expr['exprKind'], { case: Name }>['value'];

export interface Expression {
  /** How it depends on the threat. */
  readonly threat: ThreatSense;
  readonly demands: NonNullable<Node['demands']>;
  /** Names of the context's variables in the order of the schema; `steps` is what it may take. */
  evaluate(values: readonly unknown[], steps: number): { readonly outcome: Outcome; readonly steps: number };
}

/** Variables by name. Their order is that of the values of `evaluate`. */
export type Schema = Readonly<Record<string, CelType>>;

/** Throws CelProblem. */
export function compileExpression(text: string, schema: Schema): Expression {
  const node = new Walker(parsed(text), schema).root();
  if (node.type.kind !== 'bool' && node.type.kind !== 'dyn') {
    throw new CelProblem(`the whole is ${describeType(node.type)}; it must be true or false`);
  }
  return {
    threat: node.threat,
    demands: node.demands ?? new Map(),
    evaluate(values, steps) {
      const scope: Scope = { vars: [...values], steps };
      const value = node.run(scope);
      const left = Math.max(0, scope.steps);
      if (scope.steps < 0) return { outcome: exhausted, steps: left };
      if (typeof value === 'boolean' || value instanceof CelFailure) return { outcome: value, steps: left };
      return { outcome: new CelFailure(`it is ${nameOfValue(value)}, not true or false`), steps: left };
    },
  };
}

type Parsed = ReturnType<typeof parse>;

function parsed(text: string): Parsed {
  if (text.length > limits.ruleExpressionUnitsMax) {
    throw new CelProblem(`the expression is longer than ${limits.ruleExpressionUnitsMax} characters`);
  }
  if ((text.match(/[([{]/g) ?? []).length > limits.ruleBracketsMax) {
    throw new CelProblem(`the expression has more than ${limits.ruleBracketsMax} brackets`);
  }
  try {
    return parse(text);
  } catch (thrown) {
    if (thrown instanceof RangeError) throw new CelProblem('the expression nests too deeply');
    const { message, location } = thrown as Error & { location?: { start?: { offset?: number } } };
    throw new CelProblem(message.replace(/^<input>:\d+:\d+: /, ''), location?.start?.offset);
  }
}

export class Walker {
  readonly #parsed: Parsed;
  readonly #schema: Schema;
  readonly #slots = new Map<string, { readonly slot: number; readonly type: CelType; readonly root: boolean }>();
  readonly #macros: Macros;
  #nodes = 0;
  #depth = 0;
  #folds = 0;

  constructor(tree: Parsed, schema: Schema) {
    this.#parsed = tree;
    this.#schema = schema;
    for (const [slot, [name, type]] of Object.entries(schema).entries())
      this.#slots.set(name, { slot, type, root: true });
    this.#macros = new Macros(this);
  }

  root(): Node {
    return this.walk(this.#parsed.expr);
  }

  walk(expr: Expr | undefined): Node {
    if (expr === undefined) throw new CelProblem('the expression is incomplete');
    this.#nodes += 1;
    if (this.#nodes > limits.ruleNodesMax)
      throw new CelProblem(`the expression has more than ${limits.ruleNodesMax} parts`);
    this.#depth += 1;
    if (this.#depth > limits.ruleDepthMax)
      throw new CelProblem(`the expression nests deeper than ${limits.ruleDepthMax} levels`);
    try {
      return this.#kind(expr);
    } catch (thrown) {
      if (!(thrown instanceof CelProblem) || thrown.offset !== undefined) throw thrown;
      throw new CelProblem(thrown.message, this.#parsed.sourceInfo?.positions[String(expr.id)]);
    } finally {
      this.#depth -= 1;
    }
  }

  /** Walks the body of a loop, in which `name` stands for each element in turn. */
  inLoop<T>(name: string, type: CelType, body: (slot: number) => T): T {
    if (this.#folds >= limits.ruleLoopDepthMax) {
      throw new CelProblem(`loops nest deeper than ${limits.ruleLoopDepthMax} levels`);
    }
    if (name in this.#schema)
      throw new CelProblem(`the variable ${name} of the loop hides the one of the event's context`);
    const before = this.#slots.get(name);
    const slot = Object.keys(this.#schema).length + this.#folds;
    this.#folds += 1;
    this.#slots.set(name, { slot, type, root: false });
    try {
      return body(slot);
    } finally {
      this.#folds -= 1;
      if (before === undefined) this.#slots.delete(name);
      else this.#slots.set(name, before);
    }
  }

  #kind({ exprKind }: Expr): Node {
    switch (exprKind.case) {
      case 'constExpr':
        return constant(exprKind.value);
      case 'identExpr':
        return this.#ident(exprKind.value.name);
      case 'selectExpr':
        return this.#select(exprKind.value);
      case 'callExpr':
        return this.#call(exprKind.value);
      case 'listExpr':
        return this.#list(exprKind.value);
      case 'comprehensionExpr':
        return this.#macros.build(exprKind.value);
      case 'structExpr':
        throw new CelProblem('maps and messages cannot be written in a rule');
      default:
        throw new CelProblem('this cannot be written in a rule');
    }
  }

  #ident(name: string): Node {
    const known = this.#slots.get(name);
    if (known === undefined) throw new CelProblem(`there is no ${name}${suggest(name, [...this.#slots.keys()])}`);
    const { slot, type, root } = known;
    const threat: ThreatSense = root && ['score', 'level', 'indicators'].includes(name) ? 'up' : 'none';
    return { type, threat, run: ({ vars }) => vars[slot], ...(root ? { path: name } : {}) };
  }

  #select({ operand, field, testOnly }: Kind<'selectExpr'>): Node {
    const of = this.walk(operand);
    const { type } = of;
    if (type.kind === 'object' && !Object.hasOwn(type.fields, field)) {
      throw new CelProblem(`${type.name} has no ${field}${suggest(field, Object.keys(type.fields))}`);
    }
    if (type.kind !== 'object' && type.kind !== 'map' && type.kind !== 'dyn') {
      throw new CelProblem(`${describeType(type)} has no fields, and so no ${field}`);
    }
    const missing = new CelFailure(`${of.path ?? 'a value'} has no ${field}`);
    const member = type.kind === 'object' ? (type.fields[field] ?? DYN) : type.kind === 'map' ? type.of : DYN;
    const look = (value: unknown): unknown =>
      isRecord(value) && Object.hasOwn(value, field) ? value[field] : value instanceof CelFailure ? value : missing;
    if (testOnly) {
      return {
        type: BOOL,
        threat: opaque(of.threat),
        run: (scope) => {
          const found = look(of.run(scope));
          return found === missing ? false : found instanceof CelFailure ? found : found !== undefined;
        },
      };
    }
    return {
      type: member,
      threat: opaque(of.threat),
      run: (scope) => look(of.run(scope)) ?? null,
      ...(of.path === undefined ? {} : { path: `${of.path}.${field}` }),
    };
  }

  #call({ function: name, target, args }: Kind<'callExpr'>): Node {
    const all = target === undefined ? args : [target, ...args];
    if (name === '_[_]') return this.#index(all.map((arg) => this.walk(arg)));
    const build = operators.get(name) ?? functions.get(name);
    if (build === undefined)
      throw new CelProblem(`there is no function ${name}${suggest(name, [...functions.keys()])}`);
    return build(all.map((arg) => this.walk(arg)));
  }

  #index(args: readonly Node[]): Node {
    const [of, key] = args;
    if (of === undefined || key === undefined) throw new CelProblem('[ ] is incomplete');
    const { type } = of;
    if (type.kind !== 'list' && type.kind !== 'map' && type.kind !== 'dyn')
      throw new CelProblem(`${describeType(type)} has no elements`);
    const wanted =
      type.kind === 'list' ? ['int', 'dyn'] : type.kind === 'map' ? ['string', 'dyn'] : ['int', 'string', 'dyn'];
    if (!wanted.includes(key.type.kind))
      throw new CelProblem(`an element of ${describeType(type)} is not found by ${describeType(key.type)}`);
    const missing = new CelFailure('there is no such element');
    return {
      type: 'of' in type ? type.of : DYN,
      threat: opaque(of.threat, key.threat),
      run: (scope) => {
        const value = of.run(scope);
        if (value instanceof CelFailure) return value;
        const at = key.run(scope);
        if (at instanceof CelFailure) return at;
        if (Array.isArray(value)) return typeof at === 'number' && Object.hasOwn(value, at) ? value[at] : missing;
        return isRecord(value) && typeof at === 'string' && Object.hasOwn(value, at) ? value[at] : missing;
      },
    };
  }

  #list({ elements }: Kind<'listExpr'>): Node {
    const nodes = elements.map((element) => this.walk(element));
    let of: CelType | undefined = nodes[0]?.type ?? DYN;
    for (const { type } of nodes) {
      of = unite(of, type);
      if (of === undefined) throw new CelProblem('elements of one list must be of one type');
    }
    const literal = nodes.every((node) => node.literal !== undefined)
      ? { literal: nodes.map((node) => node.literal) }
      : {};
    return {
      type: listOf(of),
      threat: opaque(...nodes.map(({ threat }) => threat)),
      ...literal,
      run: (scope) => {
        scope.steps -= nodes.length;
        const list: unknown[] = [];
        for (const node of nodes) {
          const value = node.run(scope);
          if (value instanceof CelFailure) return value;
          list.push(value);
        }
        return list;
      },
    };
  }
}

function constant({ constantKind }: Kind<'constExpr'>): Node {
  const of = (type: CelType, literal: unknown): Node => ({ type, literal, threat: 'none', run: () => literal });
  switch (constantKind.case) {
    case 'boolValue':
      return of(BOOL, constantKind.value);
    case 'stringValue':
      return of(STRING, constantKind.value);
    case 'doubleValue':
      return of(DOUBLE, constantKind.value);
    case 'nullValue':
      return of(NULL, null);
    case 'int64Value': {
      const value = Number(constantKind.value);
      if (!Number.isSafeInteger(value)) throw new CelProblem(`${constantKind.value} is beyond the range of int (2^53)`);
      return of(INT, value);
    }
    default:
      throw new CelProblem('a literal of this kind cannot be written in a rule');
  }
}
